# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils import _holder
from ansible_collections.onprem.rollout.plugins.plugin_utils._evict import refusal, said

ELSEWHERE = {"run": "ctl9/boot/ns/7/1#web1", "user": "ada", "controller": "ctl9", "pid": 7, "job": "12"}
HERE = {**ELSEWHERE, "run": f"{_holder.run_of(os.getpid())}#web1"}
GONE = {**ELSEWHERE, "run": "/".join([*_holder.run_of(os.getpid()).split("/")[:4], "1", ""]) + "#web1"}


def told(holder=ELSEWHERE, left=600, **changes):
    found = {"held": True, "phase": "changing", "rollout": "shop-2.0", "release": "shop 2.0", "began": "2026-01-01T00:00:00Z", "holder": holder}
    return {**found, "lease_left": left, "evicted": None, **changes}


CASES = [
    ("a lease that goes on", ELSEWHERE, 600, False, "its lease goes on for 10 min 0 s"),
    ("a lease that has ended", ELSEWHERE, 0, True, "its lease has ended"),
    ("a run of this machine that lives, whatever its lease", HERE, 0, False, "that run is alive"),
    ("a run of this machine that is gone, whatever its lease", GONE, 600, True, "that run has ended"),
]


@pytest.mark.parametrize("name, holder, left, free, known", CASES, ids=[case[0] for case in CASES])
def test_a_host_is_taken_only_from_a_run_that_is_known_to_be_gone_or_by_force(name, holder, left, free, known):
    found = told(holder, left)
    assert said(found) == f"held by rollout shop-2.0 of ada on ctl9, pid 7, job 12: changing to shop 2.0 since 2026-01-01T00:00:00Z; {known}"
    assert (refusal(found, "it hangs", force=False) == "") is free
    assert refusal(found, "it hangs", force=True) == ""
    assert "rollout_why is empty" in refusal(found, " ", force=True)


def test_who_took_a_host_from_whom_is_said_until_it_is_settled():
    found = told({**HERE, "run": ""}, 0, held=False, evicted={"holder": ELSEWHERE, "by": {**HERE, "user": "eve"}, "at": "2026-01-01T00:10:00Z", "why": "hangs"})
    assert "left half done by ada on ctl9, pid 7, job 12, from whom eve on ctl9, pid 7, job 12 took it at 2026-01-01T00:10:00Z: hangs" in said(found)
    assert said({"held": False, "phase": "committed", "release": "shop 2.0", "began": "", "evicted": None}) == "nobody holds it"


def test_what_a_host_tells_is_safe_to_print():
    assert "\x1b" not in said(told({**ELSEWHERE, "user": "\x1b[2J"}))
