# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a host could not be reached, from what ansible-core says of it. Pure.

Core knows one word for all of it, C(unreachable). The texts were read in the connection plugins ssh and paramiko_ssh of ansible-core 2.16.19, 2.19.14 and
2.21.5, in psrp, and in OpenSSH 9.2, whose standard error the plugin ssh passes on.
"""

from __future__ import annotations

import re
from enum import Enum


class Cause(str, Enum):
    """BEFORE and LOGIN are of a host whose change had not begun; AFTER is whatever kept one from being reached whose change had."""

    BEFORE = "before"
    LOGIN = "login"
    AFTER = "after"

    def __str__(self) -> str:
        return self.value


WORDS = {Cause.BEFORE: "unreachable before their change", Cause.LOGIN: "login refused", Cause.AFTER: "unreachable after their change began"}

REFUSED = re.compile(
    r"Permission denied \([a-z,-]+\)"  # OpenSSH: what it could have logged in by
    r"|Permission denied, please try again"
    r"|Too many authentication failures"
    r"|Host key verification failed"
    r"|No authentication methods available|Authentication failed|host key mismatch for "  # paramiko
    r"|Private key file is encrypted"
    r"|Invalid/incorrect (username/)?password"  # sshpass, by the plugin ssh
    r"|^Failed to authenticate"
    r"|failed to authenticate with "
)


def is_login_refused(message: str) -> bool:
    """Whether the host was there and one side of the login did not trust the other, and nothing is known to be down."""
    return REFUSED.search(message) is not None
