# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._hostrun import HostRun


def heard(*reports: tuple[str, dict], **known) -> HostRun:
    """What is known of a host after its tasks failed: each a verb of ours, or nothing, and what it said."""
    run = HostRun(begun=True, **known)
    for verb, data in reports:
        run.hear(SimpleNamespace(kind="failed", host="h0", task=verb or "Install", verb=verb, payload="", data=data))
    return run


MISSING = ("", {"reason": "Could not find missing.yml"})
REASONS = [
    ("an include says it so", [MISSING], {}, "Could not find missing.yml"),
    ("core kept no result", [MISSING, ("retry", {"msg": "see above", "unexplained": True})], {}, "Could not find missing.yml"),
    ("nothing was heard", [("retry", {"msg": "see above", "unexplained": True})], {}, "see above"),
    ("as it failed", [("", {"msg": "boom"}), ("retry", {"msg": "boom"})], {}, "boom"),
    ("asked too often", [("", {"msg": "busy"}), ("retry", {"msg": "asked for 30 min: busy"})], {}, "asked for 30 min: busy"),
    ("on its way back already", [("retry", {"msg": "its wave is reverted"})], {"restoring": True, "why": "its wave is reverted"}, "its wave is reverted"),
    ("our reasons are words", [("archive", {"reason": "size"})], {}, "'archive' failed"),
]


@pytest.mark.parametrize("reports, known, why", [case[1:] for case in REASONS], ids=[case[0] for case in REASONS])
def test_why_a_payload_failed(reports, known, why):
    assert heard(*reports, **known).why == why


@pytest.mark.parametrize(
    "kind, verb, data, blamed",
    [
        ("ok", "restore", {"outcome": "restored", "remembered": True}, True),
        ("ok", "restore", {"outcome": "restored", "remembered": False}, False),
        ("failed", "begin", {"refused": True, "reason": "failed_before"}, True),
        ("failed", "begin", {"refused": True, "reason": "sick"}, False),
    ],
)
def test_whether_the_host_refuses_the_release_from_now_on(kind, verb, data, blamed):
    run = HostRun(begun=verb == "restore")
    run.hear(SimpleNamespace(kind=kind, host="h0", task=verb, verb=verb, payload="", data=data))
    assert run.blamed is blamed
