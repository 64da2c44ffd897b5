# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which releases may run, as far as the input and the hosts' records tell before any host is touched.

Each host judges it once more in C(begin), by the same rules: those of L(_floor).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.rollout.plugins.module_utils import _floor
from ansible_collections.onprem.rollout.plugins.module_utils._ranges import Range
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem
from ansible_collections.onprem.rollout.plugins.plugin_utils._waivers import Waivers


def identity(release: Mapping[str, Any], digest: str, vulnerable: list[str]) -> dict[str, Any]:
    """What a host judges a release by."""
    known = [*(release.get("vulnerable") or []), *vulnerable]
    return {"name": release.get("name"), "version": release.get("version"), "digest": digest, "epoch": int(release.get("epoch") or 0), "vulnerable": known}


def problems(release: Mapping[str, Any], policy: Any) -> list[Problem]:
    """What is wrong with the declared ranges, and with a release that is in one of them itself. policy: O(rollout_vulnerable)."""
    found: list[Problem] = []
    for where, ranges in (("rollout_release.vulnerable", release.get("vulnerable", [])), ("rollout_vulnerable", policy)):
        if not isinstance(ranges, list):
            found.append(Problem(where, ranges, 'write a list of ranges such as "vers:semver/>=1.2|<1.4.1"'))
            continue
        for index, text in enumerate(ranges):
            try:
                inside = str(release.get("version")) in Range(str(text))
            except ValueError as error:
                found.append(Problem(f"{where}[{index}]", text, str(error)))
                continue
            if inside:
                found.append(Problem(f"{where}[{index}]", text, f"the release is in it, so no host may run {release.get('name')} {release.get('version')}"))
    return found


def below(record: Mapping[str, Any], release: Mapping[str, Any]) -> str:
    """Why the host of this record may not run the release, or nothing. A record is what a host says: it may be anything."""
    floors = record.get("floors") or {}
    if not _floor.sound(floors):
        return "its record has floors that cannot be read"
    return _floor.judge(floors, dict(release)) if release else ""


def refusal(why: str, waivers: Waivers) -> str:
    """The same for people, with why no waiver helps."""
    other = f"; no waiver counts: {'; '.join(waivers.flaws)}" if waivers.flaws else ""
    return f"it must not run here: {why}{other}; roll a newer release out, or have somebody else waive this: onprem.rollout.waive"


def waiver_of(record: Mapping[str, Any], host: str, waivers: Waivers) -> tuple[Mapping[str, str] | None, str]:
    """The waiver of the host that was not used there yet; and why there is none, if one was."""
    waiver = waivers.by_host.get(host)
    known = record.get("waivers") or []
    if not isinstance(known, list) or not all(isinstance(item, Mapping) for item in known):
        return None, "its record has waivers that cannot be read"
    used = [item.get("used") for item in known if waiver and item.get("id") == waiver["id"]]
    return (None, f"the waiver {waiver['id']} was used here on {used[0]}") if waiver and used else (waiver, "")
