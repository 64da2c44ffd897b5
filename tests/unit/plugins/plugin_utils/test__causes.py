# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What core says of hosts that cannot be reached, word for word. The fleet's test of dark hosts asks real servers."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._causes import is_login_refused

SSH = "Failed to connect to the host via ssh: "
REFUSED = [
    SSH + "root@127.0.0.1: Permission denied (publickey,password).",
    SSH + "Warning: Permanently added '10.1.2.3' (ED25519) to the list of known hosts.\r\nadmin@10.1.2.3: Permission denied (publickey,gssapi-with-mic).",
    SSH + "Received disconnect from 10.1.2.3 port 22:2: Too many authentication failures\r\nDisconnected from 10.1.2.3 port 22",
    SSH + "Host key verification failed.",
    "Task failed: Failed to connect to the host via ssh: root@web1: Permission denied (publickey).",
    "Invalid/incorrect password: Permission denied, please try again.",
    "Invalid/incorrect username/password. Skipping remaining 2 retries to prevent account lockout: <error censored due to no log>",
    "Failed to authenticate: Authentication failed.",
    "Failed to authenticate.",
    "No authentication methods available",
    "host key mismatch for web1",
]
AWAY = [
    SSH + "ssh: connect to host 127.0.0.1 port 1: Connection refused",
    SSH + "ssh: connect to host 10.1.2.3 port 22: Connection timed out",
    SSH + "ssh: connect to host 10.1.2.3 port 22: No route to host",
    SSH + "ssh: Could not resolve hostname web1: Name or service not known",
    SSH + "kex_exchange_identification: Connection closed by remote host",
    SSH + "Connection closed by 10.1.2.3 port 22",
    SSH + "<error censored due to no log>",
    "Failed to create temporary directory. In some cases, you may have been able to authenticate and did not have permissions on the target directory.",
    "mkdir, exited with result 1, stderr output: mkdir: cannot create directory: Permission denied",
    "Timeout (12s) waiting for privilege escalation prompt: ",
    "",
]


@pytest.mark.parametrize("message, refused", [(text, True) for text in REFUSED] + [(text, False) for text in AWAY])
def test_a_refused_login_is_told_from_a_host_that_is_away(message, refused):
    assert is_login_refused(message) is refused
