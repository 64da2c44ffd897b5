# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host, a wave and a rollout can be. Pure."""

from __future__ import annotations

from enum import Enum


class State(str, Enum):
    """What a host is doing, or, from COMMITTED on, its outcome."""

    WAITING = "waiting"
    CHANGING = "changing"
    PARKED = "parked"
    COMMITTING = "committing"
    RESTORING = "restoring"
    COMMITTED = "committed"
    RESTORED = "restored"
    RESTORE_FAILED = "restore_failed"
    LOST = "lost"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    HELD = "held"
    SKIPPED = "skipped"

    def __str__(self) -> str:
        return self.value


IN_CHANGE = frozenset({State.CHANGING, State.COMMITTING, State.RESTORING})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.CHANGING, State.SKIPPED, State.HELD, State.UNREACHABLE, State.REFUSED, State.RESTORE_FAILED, State.LOST}),
    State.CHANGING: frozenset({State.PARKED, State.RESTORING, State.SKIPPED, State.UNREACHABLE, State.REFUSED, State.HELD}),
    State.PARKED: frozenset({State.COMMITTING, State.RESTORING, State.HELD}),
    State.COMMITTING: frozenset({State.COMMITTED, State.RESTORING, State.HELD}),
    State.RESTORING: frozenset(
        {State.RESTORED, State.RESTORE_FAILED, State.LOST, State.COMMITTED, State.SKIPPED, State.UNREACHABLE, State.REFUSED, State.HELD}
    ),
    State.LOST: frozenset({State.RESTORED, State.RESTORE_FAILED, State.COMMITTED, State.REFUSED, State.HELD}),  # it came back
}

OUTCOMES: dict[State, str] = {
    State.COMMITTED: "runs the release, healthy, and is never restored by itself again",
    State.RESTORED: "runs what it ran before, proven healthy",
    State.RESTORE_FAILED: "could not be proven after its restore; nobody touches it until an operator does",
    State.LOST: "went dark while in change or while it was put back, and did not come back in time; or its tasks ended before its restore had spoken",
    State.UNREACHABLE: "could not be reached before its change; untouched",
    State.REFUSED: "was not fit for a change: sick already, held by another rollout, inconsistent; untouched",
    State.HELD: "not started, or upgraded and kept uncommitted: the rollout was halted, the customer holds it, or its change cannot be undone",
    State.SKIPPED: "ran the release already",
}

PROVES = frozenset({State.PARKED, State.COMMITTED, State.SKIPPED})


class Wave(str, Enum):
    """What a wave is doing."""

    PENDING = "pending"
    FILLING = "filling"
    SOAKING = "soaking"
    COMMITTING = "committing"
    JUDGED = "judged"


class Halt(str, Enum):
    """Why a rollout stopped before its end: a closed set."""

    FAILURES = "failures"
    UNREACHABLE = "unreachable"
    DARK = "dark"
    RESTORE_FAILED = "restore_failed"
    LOST = "lost"
    UNFIT = "unfit"
    OUTAGE = "outage"
    UNPROVEN = "unproven"
    UNJUDGED = "unjudged"
    UNHEALTHY = "unhealthy"
    STALLED = "stalled"
    GATE = "gate"
    ABORTED = "aborted"
    STOPPED = "stopped"
    SUPERSEDED = "superseded"
    WAITING = "waiting"
