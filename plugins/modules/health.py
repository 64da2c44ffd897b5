#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: health
short_description: Judge whether a host is well
version_added: 0.1.0
author: onprem.rollout contributors (@onprem-rollout)
description:
  - Runs health checks on the host, all at the same time, and waits until each has succeeded or its deadline is over.
  - Fails when a required check does not succeed, and says what was seen, what was expected, and after how long.
  - In a host transaction it also moves the phase to C(verifying) before the checks, and to C(awaiting_commit) when they succeeded.
options:
  checks:
    description:
      - A list of checks. Each is a mapping with a C(type), the options of this type, and any of the common options.
      - Common are C(name), C(level) (C(required), the default, or C(advisory), which is reported and never fails),
        C(interval), C(deadline), C(consecutive) and C(timeout) (seconds of one attempt, 5 by default).
      - "C(http) asks with GET: C(url), C(status) (one or a list, 200 by default), C(contains) (a text in the first 1 MiB of the body),
        C(validate_certs) (true by default). It uses no proxy, and follows redirects unless C(status) names them."
      - "C(tcp) connects: C(port), C(host) (127.0.0.1 by default)."
      - "C(systemd) asks for the state of a unit: C(unit), C(state) (C(active) by default)."
      - "C(command) runs a program without a shell: C(argv) (a list), C(rc) (0 by default), C(contains) (a text in its output)."
      - "C(file) looks at a path: C(path), C(state) (C(present), the default, or C(absent)), C(contains) (a text in the file)."
      - In a transaction the default is what was given to M(onprem.rollout.begin).
    type: list
    elements: dict
  interval:
    description: Seconds between two attempts of a check that does not say it itself; also with C(s), C(m) or C(h).
    type: str
    default: 1s
  deadline:
    description: No attempt begins after so many seconds. There is always one attempt. Also with C(s), C(m) or C(h).
    type: str
    default: 30s
  consecutive:
    description: How many attempts in a row must succeed.
    type: int
    default: 1
  in_transaction:
    description: Whether this judges the host transaction of this run, and moves its phase.
    type: bool
    default: false
  state_dir:
    description: Where the host keeps its record. Only used with O(in_transaction).
    type: path
    default: /var/lib/onprem-rollout
  holder:
    description: Who this run is. The action plugin fills it in.
    type: dict
attributes:
  check_mode:
    description: Runs the checks, which change nothing, and leaves the phase alone.
    support: full
  diff_mode:
    description: Shows the phase before and after.
    support: full
  platform:
    description: Target OS that can be operated against.
    support: full
    platforms: posix
seealso:
  - module: onprem.rollout.begin
  - module: onprem.rollout.commit
"""

EXAMPLES = r"""
- name: Wait until the shop answers three times in a row
  onprem.rollout.health:
    deadline: 2m
    checks:
      - name: shop
        type: http
        url: http://127.0.0.1:8080/health
        contains: '"status": "ok"'
        consecutive: 3
      - type: systemd
        unit: shop.service
      - type: tcp
        port: 8081
        level: advisory

- name: Judge the release that was just installed
  onprem.rollout.health:
    in_transaction: true
"""

RETURN = r"""
checks:
  description: The result of every check, in the order of O(checks).
  returned: always, unless the checks are not valid
  type: list
  elements: dict
  contains:
    name:
      description: The name given, or the type and what it looks at.
      type: str
    type:
      description: The type of the check.
      type: str
    level:
      description: V(required) or V(advisory).
      type: str
    ok:
      description: Whether the check succeeded.
      type: bool
    seen:
      description: What the last attempt saw.
      type: str
      sample: status 500, body 'cannot open database'
    expected:
      description: What it should have seen.
      type: str
      sample: status 200
    seconds:
      description: How long the check took, with all its attempts.
      type: float
    attempts:
      description: How many attempts there were.
      type: int
phase:
  description: The phase of the transaction, with O(in_transaction).
  returned: success
  type: str
  sample: awaiting_commit
reason:
  description: Why it failed, as one word; V(sick) when a required check did not succeed.
  returned: failure
  type: str
refused:
  description: Whether it failed before anything was done.
  returned: failure
  type: bool
"""

from typing import Any, Dict, List, Optional, Tuple

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.rollout.plugins.module_utils import _checks, _record, _transaction
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError, finish

ARGUMENTS: Dict[str, Any] = {
    "argument_spec": {
        "checks": {"type": "list", "elements": "dict"},
        "interval": {"type": "str", "default": "1s"},
        "deadline": {"type": "str", "default": "30s"},
        "consecutive": {"type": "int", "default": 1},
        "in_transaction": {"type": "bool", "default": False},
        "state_dir": {"type": "path", "default": "/var/lib/onprem-rollout"},
        "holder": {"type": "dict"},
    },
    "supports_check_mode": True,
}


def _move(module: AnsibleModule, step: Any) -> Tuple[bool, Dict[str, Any]]:
    """Move the phase of our transaction; whether it moved, and the transaction."""
    if not module.params["in_transaction"]:
        return False, {}
    try:
        moved, record = step(module.params["state_dir"], module.params["holder"] or {}, check_mode=module.check_mode)
    except RolloutError as error:
        if module.check_mode and error.reason in ("no_transaction", "not_ours"):
            return True, {}  # begin was in check mode too, or the transaction would be there
        raise
    return moved, record["transaction"]


def _phase(module: AnsibleModule) -> Optional[str]:
    if not module.params["in_transaction"]:
        return None
    transaction = _record.load(module.params["state_dir"])["transaction"]
    return str(transaction["phase"]) if transaction else None


def _message(sick: List[Dict[str, Any]], results: List[Dict[str, Any]]) -> str:
    required = sum(1 for result in results if result["level"] == "required")
    return "This host is not healthy: {0} of {1} required check{2} failed. {3}".format(len(sick), required, "s" * (required != 1), _checks.describe(sick))


def run(module: AnsibleModule) -> Tuple[bool, Dict[str, Any], Dict[str, Any]]:
    """Judge the host; in a transaction also move the phase, before and after."""
    params = module.params
    before = _phase(module)
    moved, transaction = _move(module, _transaction.verifying)
    checks = params["checks"]
    if checks is None and params["in_transaction"]:
        checks = (transaction.get("options") or {}).get("checks") or []
    if checks is None:
        raise Refused("There is nothing to judge. Give checks, or use in_transaction to take those of the transaction.", "checks")
    results = _checks.run(checks, {key: params[key] for key in ("interval", "deadline", "consecutive")})
    sick = _checks.failed(results)
    if sick:
        raise RolloutError(_message(sick, results), "sick", checks=results, changed=moved and not module.check_mode)
    if not params["in_transaction"]:
        return False, {"checks": results}, {"before": {}, "after": {}}
    _move(module, _transaction.awaiting_commit)
    after = "awaiting_commit"
    return before != after, {"checks": results, "phase": after}, {"before": {"phase": before}, "after": {"phase": after}}


def main() -> None:
    finish(AnsibleModule(**ARGUMENTS), run)


if __name__ == "__main__":
    main()
