# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Approvals as operators give them, with keys and without."""

from __future__ import annotations

from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Situation
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate_approval import ApprovalGate, approval_text
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Entry, Head, stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._signatures import APPROVAL, sign

PLAN = "abc123def456" + "0" * 52
OTHER = "f" * 64
NOW = 1_800_000_000.0
LATER, EARLIER = stamp(NOW + 3600), stamp(NOW - 3600)
LAUNCHER = "ada on ctl1, pid 7"


def event(at=NOW - 60, who="bob on ctl2, pid 9", number=3, **data):
    return Entry(Head(number, "0" * 64), "approve", "shop-2.0", who, at, {"plan": PLAN, "remark": "", "expires": None, **data})


def signed(keys, by="bob@example.org", key="bob", plan=PLAN, expires=LATER, remark="looks good", **changes):
    text = approval_text(plan, by, remark, expires)
    return event(**{"by": by, "expires": expires, "text": text, "signature": sign(text, str(keys / key), APPROVAL), **changes})


def situation(*events, now=NOW, launcher=LAUNCHER, launchers=()):
    return Situation(PLAN, "shop-2.0", "early", 1, ("web1",), launcher, now, events, launchers)


def gate(keys, **options):
    return ApprovalGate("approval", allowed_signers=str(keys / "allowed"), **options)
