# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One of our modules without ansible-core's wrapper around it: the stand-in for AnsibleModule.

The controller has validated the arguments by the module's own specification. See plugin_utils/_light.py.
"""

import json
import sys
from typing import Any, Callable, Dict

from ._errors import Outcome, finish


class Module:
    """As much of AnsibleModule as run() and finish() of our modules use."""

    def __init__(self, params: Dict[str, Any], check_mode: bool) -> None:
        self.params = params
        self.check_mode = check_mode

    def exit_json(self, **result: Any) -> None:
        print("\n" + json.dumps(result))
        sys.exit(0)

    def fail_json(self, **result: Any) -> None:
        print("\n" + json.dumps(dict(result, failed=True)))
        sys.exit(1)


def start(run: Callable[[Any], Outcome], params: Dict[str, Any], check_mode: bool) -> None:
    finish(Module(params, check_mode), run)
