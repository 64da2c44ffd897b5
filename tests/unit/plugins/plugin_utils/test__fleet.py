# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The health of the whole fleet: who is asked, and what the answers add up to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.plugin_utils._budget import allowed
from ansible_collections.onprem.rollout.plugins.plugin_utils._fleet import SHOWN, members, verdict
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import IN_CHANGE, State

WELL = [{"name": "web", "type": "http", "level": "required", "ok": True}]
ILL = [{"name": "web", "type": "http", "level": "required", "ok": False}]
ADVICE = [{"name": "web", "type": "http", "level": "advisory", "ok": False}]


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.sampled_from(list(State)), max_size=12))
def test_nobody_in_change_is_asked_and_everybody_known_to_be_well_once_is(states):
    asked = members(states, {"abc": "audit"})
    assert not {states[host] for host in asked} & IN_CHANGE
    assert "abc" not in asked
    assert {host for host, state in states.items() if state in (State.WAITING, State.COMMITTED) and host != "abc"} <= set(asked)


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.sampled_from([None, WELL, ILL, ADVICE]), max_size=20),
    st.one_of(st.none(), st.integers(0, 20), st.integers(0, 100).map(lambda number: f"{number}%")),
)
def test_it_is_held_when_unhealthy_hosts_are_more_than_the_limit_and_never_else(answers, limit):
    bad = sum(1 for answer in answers.values() if answer is None or answer is ILL)
    assert bool(verdict(answers, limit, len(answers))) == (bad > allowed(limit, len(answers)))


def test_it_names_the_limit_the_hosts_and_their_checks():
    assert verdict({"a": ILL, "b": None, "c": WELL}, 1, 3) == "unhealthy hosts of the fleet: 2 > max_unhealthy 1: a (web), b (no answer)"
    assert verdict({f"h{number}": None for number in range(SHOWN + 3)}, "10%", 30).endswith("h7 (no answer) and 3 more")
