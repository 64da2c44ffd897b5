# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The crash table: every fault x every phase x {entering, inside, leaving}, and at which step of a host each of them strikes."""

from __future__ import annotations

import itertools
from typing import NamedTuple

STATE, SHOP = "/var/lib/onprem-rollout", "/opt/shop"
FAULTS = (
    "payload error",
    "module killed",
    "controller killed",
    "power cut",
    "host hung",
    "network cut",
    "disk full",
    "clock a day ahead",
    "clock a day behind",
)
PHASES = ("prepared", "changing", "verifying", "awaiting_commit", "committing", "restoring")
MOMENTS = ("entering", "inside", "leaving")
PARKED = ("awaiting_commit", "inside")
HOSTS = 6


class Cell(NamedTuple):
    fault: str
    phase: str
    moment: str

    def __str__(self) -> str:
        return f"{self.fault}, {self.moment} {self.phase}"


class Place(NamedTuple):
    """A process of the host is stopped when it opens `file` in `directory` for the `nth` time, the record being in `phase`. See files/gate.py."""

    phase: str
    directory: str
    file: str
    nth: int
    what: str


PLACES = {
    ("prepared", "entering"): Place("prepared", STATE, ".", 1, "the timer is armed and the record written, nothing else"),
    ("prepared", "inside"): Place("prepared", f"{SHOP}/etc", "*", 1, "the snapshot is being taken"),
    ("prepared", "leaving"): Place("prepared", STATE, "record.json.new", 1, "the snapshot is there"),
    ("changing", "entering"): Place("changing", STATE, ".", 1, "begin has not answered yet"),
    ("changing", "inside"): Place("changing", SHOP, ".", 1, "the payload has switched, and restarted nothing yet"),
    ("changing", "leaving"): Place("changing", STATE, "record.json.new", 1, "the payload is through"),
    ("verifying", "entering"): Place("verifying", STATE, ".", 1, "no check was made yet"),
    ("verifying", "inside"): Place("verifying", STATE, "lock", 1, "the checks passed, the lock is free"),
    ("verifying", "leaving"): Place("verifying", STATE, "record.json.new", 1, "the record is about to say so"),
    ("awaiting_commit", "entering"): Place("awaiting_commit", STATE, ".", 1, "health has not answered yet"),
    PARKED: Place("awaiting_commit", "", "", 0, "parked, nothing of ours runs there"),
    ("awaiting_commit", "leaving"): Place("awaiting_commit", STATE, "lock", 1, "commit has connected"),
    ("committing", "entering"): Place("awaiting_commit", STATE, "record.json", 1, "commit holds the lock and reads the record"),
    ("committing", "inside"): Place("awaiting_commit", STATE, "record.json.new", 1, "the last check passed, the commit is about to be written"),
    ("committing", "leaving"): Place("committed", STATE, ".", 1, "the commit is written, the timer still armed"),
    ("restoring", "entering"): Place("restoring", STATE, ".", 1, "nothing was put back yet"),
    ("restoring", "inside"): Place("restoring", f"{SHOP}/etc", ".onprem-rollout.*", 1, "some files are back, some not"),
    ("restoring", "leaving"): Place("restoring", STATE, "record.json.new", 1, "all is back and proven, the record is about to say so"),
}


def left_out(cell: Cell) -> str:
    """Why this combination makes no sense; empty if it does."""
    if cell.fault == "payload error" and cell.phase != "changing":
        return "the payload runs in changing and in no other phase"
    if cell.fault == "module killed" and (cell.phase, cell.moment) == PARKED:
        return "no module runs on a parked host"
    return ""


ALL = [Cell(*names) for names in itertools.product(FAULTS, PHASES, MOMENTS)]
CELLS = [cell for cell in ALL if not left_out(cell)]
# One run for six hosts. The controller dies for all of them at once.
SHORT = {
    "six faults": [
        Cell("module killed", "restoring", "inside"),
        Cell("power cut", "changing", "inside"),
        Cell("host hung", "verifying", "entering"),
        Cell("network cut", "committing", "inside"),
        Cell("disk full", "changing", "inside"),
        Cell("clock a day ahead", "committing", "entering"),
    ],
    "controller killed": [Cell("controller killed", phase, "leaving") for phase in PHASES],
}


def batches() -> dict[str, list[Cell]]:
    """The whole table, as many cells at a time as there are hosts, all of one fault."""
    found = {}
    for fault in FAULTS:
        cells = [cell for cell in CELLS if cell.fault == fault]
        for first in range(0, len(cells), HOSTS):
            some = cells[first : first + HOSTS]
            phases = list(dict.fromkeys(cell.phase for cell in some))
            found[f"{fault}, {' and '.join(phases)}"] = some
    return found


def drawn() -> str:
    """The table: + struck in the short form too, x in the whole, and why not."""
    short = {cell for cells in SHORT.values() for cell in cells}
    width = max(map(len, FAULTS))
    lines = [f"{'':{width}}  " + "  ".join(f"{phase:15}" for phase in PHASES)]
    for fault in FAULTS:
        marks = ["".join("+" if (cell := Cell(fault, phase, moment)) in short else "-" if left_out(cell) else "x" for moment in MOMENTS) for phase in PHASES]
        lines.append(f"{fault:{width}}  " + "  ".join(f"{mark:15}" for mark in marks))
    reasons = sorted({(cell.fault, left_out(cell)) for cell in ALL if left_out(cell)})
    lines += [f"- left out, {fault}: {reason}" for fault, reason in reasons]
    return "\n".join([*lines, f"{len(CELLS)} cells of {len(ALL)}, {len(short)} of them in the short form"])


if __name__ == "__main__":
    print(drawn())
