# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import errno
import os

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError, finish


class Module:
    """Remembers how a module left."""

    def __init__(self):
        self.left = None

    def exit_json(self, **result):
        self.left = ("exit", result)

    def fail_json(self, **result):
        self.left = ("fail", result)


def raising(error):
    def run(_module):
        raise error

    return run


CASES = [
    (RolloutError("it broke", "broken", checks=[1]), {"msg": "it broke", "reason": "broken", "refused": False, "changed": False, "checks": [1]}),
    (RolloutError("it broke", "broken", changed=True), {"msg": "it broke", "reason": "broken", "refused": False, "changed": True}),
    (Refused("not now", "held"), {"msg": "not now", "reason": "held", "refused": True, "changed": False}),
]


@pytest.mark.parametrize(("error", "result"), CASES)
def test_errors_become_one_shape(error, result):
    module = Module()
    finish(module, raising(error))
    assert module.left == ("fail", result)


@pytest.mark.parametrize(("number", "reason"), [(errno.EACCES, "system"), (errno.ENOSPC, "no_space"), (errno.EDQUOT, "no_space")])
def test_what_the_system_says_is_passed_on(number, reason):
    module = Module()
    finish(module, raising(OSError(number, os.strerror(number), "/srv/shop")))
    how, result = module.left
    assert how == "fail"
    assert "/srv/shop" in result["msg"]
    assert result["reason"] == reason


def test_success_is_passed_on():
    module = Module()
    finish(module, lambda _module: (True, {"outcome": "begun"}, {"before": 1}))
    assert module.left == ("exit", {"changed": True, "outcome": "begun", "diff": {"before": 1}})
