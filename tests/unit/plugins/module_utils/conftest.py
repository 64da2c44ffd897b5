# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the tests of on-host code."""

import pytest

from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import Host


@pytest.fixture
def host(tmp_path):
    """A planted host whose record does not exist yet."""
    return Host(tmp_path)
