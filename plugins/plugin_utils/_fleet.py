# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The health of the whole fleet: who is asked, and what the answers add up to. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.onprem.rollout.plugins.plugin_utils._budget import Limit, allowed
from ansible_collections.onprem.rollout.plugins.plugin_utils._crosscheck import Results, sick_of
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import State

SHOWN = 8
# Of the others nobody knows, or it is known already and has a budget of its own.
ASKED = frozenset({State.WAITING, State.PARKED, State.COMMITTED, State.SKIPPED, State.RESTORED, State.REFUSED})


def members(states: Mapping[str, State], held: Mapping[str, str]) -> list[str]:
    """Everybody who takes part and is not in change."""
    return [host for host, state in states.items() if state in ASKED and host not in held]


def verdict(answers: Mapping[str, Results | None], limit: Limit, hosts: int) -> str:
    """Why the fleet is not healthy, or nothing. A host that gives no answer is not. limit: a number, or a percentage of these hosts."""
    bad = {host: [check.name for check in sick_of(results)] if results is not None else ["no answer"] for host, results in answers.items()}
    bad = {host: why for host, why in bad.items() if why}
    if len(bad) <= allowed(limit, hosts):
        return ""
    shown = [f"{host} ({', '.join(why)})" for host, why in bad.items()]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return f"unhealthy hosts of the fleet: {len(bad)} > max_unhealthy {limit}: {', '.join(shown[:SHOWN])}{more}"
