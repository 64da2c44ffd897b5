# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The errors of the on-host code, and the one place where they become C(fail_json)."""

import errno
from typing import Any, Callable, Dict, Tuple

Outcome = Tuple[bool, Dict[str, Any], Any]  # changed, result, diff


class RolloutError(Exception):
    """Something went wrong: C(reason) is a word for machines, C(details) are added to the module's result."""

    refused = False

    def __init__(self, msg: str, reason: str, **details: object) -> None:
        super(RolloutError, self).__init__(msg)
        self.reason = reason
        self.details = details


class Refused(RolloutError):
    """The host was not touched, and on purpose."""

    refused = True


def finish(module: Any, run: Callable[[Any], Outcome]) -> None:
    """Call C(run(module) -> (changed, result, diff)) and leave through exit_json or fail_json."""
    try:
        changed, result, diff = run(module)
    except RolloutError as error:
        details = dict({"changed": False}, **error.details)
        module.fail_json(msg=str(error), reason=error.reason, refused=error.refused, **details)
    except OSError as error:
        module.fail_json(
            msg="The system said: {0}. The record tells how far this host came: read it with onprem.rollout.host_info.".format(error),
            reason="no_space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "system",
            refused=False,
        )
    else:
        module.exit_json(changed=changed, diff=diff, **result)
