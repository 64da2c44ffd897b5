# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.rollout.plugins.filter.tailored import FilterModule

tailored = FilterModule().filters()["tailored"]
RELEASE = {"name": "shop", "version": "2.0", "tailored": [{"when": {"arch": "arm64"}, "artifacts": [{"path": "arm"}]}]}


@pytest.mark.parametrize("release", [{}, None, "shop", {"name": "shop", "version": "2.0"}, {"name": "shop", "tailored": []}])
def test_what_is_not_tailored_stays_as_it_is(release):
    assert tailored(release) is release


def test_a_host_takes_its_own():
    taken = tailored(RELEASE, ["web"], "Debian", "aarch64", {})
    assert taken["artifacts"] == [{"path": "arm"}]
    assert set(taken) == {"name", "version", "artifacts", "variables", "digest"}
    assert tailored(RELEASE, [], "", "", {"architecture": "aarch64"})["artifacts"] == [{"path": "arm"}]


@pytest.mark.parametrize("arch, why", [("", "asks for the arch, which is not known"), ("s390x", "no entry that matches")])
def test_a_host_that_takes_nothing_is_an_error(arch, why):
    with pytest.raises(AnsibleFilterError, match=why):
        tailored(RELEASE, [], "", arch)
