# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import os

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _traffic
from ansible_collections.onprem.rollout.plugins.module_utils._errors import RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import OTHER, RUN, upgrade


def note(host, drained, holder=RUN, check_mode=False):
    return _traffic.note(host.state_dir, holder, drained, check_mode)


def test_the_note_outlives_a_restore_and_ends_with_a_commit(host):
    host.begin()
    assert note(host, True) == (True, {"drained": True}, {"before": {"drained": False}, "after": {"drained": True}})
    assert note(host, True)[0] is False
    upgrade(host.tree)
    host.restore()
    assert (host.record()["transaction"]["phase"], host.record()["drained"]) == ("restored", True)
    host.begin()
    host.verifying()
    host.awaiting_commit()
    assert host.record()["drained"]
    host.commit()
    assert "drained" not in host.record()


def test_a_run_that_is_over_does_not_take_the_note_from_the_run_that_drained(host):
    host.begin()
    note(host, True)
    with pytest.raises(RolloutError, match="belongs to tester on controller"):
        note(host, False, OTHER)
    assert host.record()["drained"]
    host.restore()
    assert note(host, False, OTHER)[0]
    assert not host.record()["drained"]


def test_check_mode_notes_nothing(host):
    assert note(host, True, check_mode=True)[0]
    assert not os.path.exists(host.state_dir)
    host.begin()
    assert note(host, True, check_mode=True)[0]
    assert "drained" not in host.record()
    note(host, True)
    assert note(host, False, OTHER, check_mode=True)[0], "it would have been settled by now"
    assert host.record()["drained"]


def test_without_a_record_there_is_nothing_to_take_away_and_nowhere_to_note(host):
    assert note(host, False)[0] is False
    with pytest.raises(RolloutError, match=r"Run onprem\.rollout\.begin first"):
        note(host, True)
