# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A line is compared after every step with one that looks at everybody."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Ring, Spread
from ansible_collections.onprem.rollout.plugins.plugin_utils._spread import Crowd, Line, at_once, limits, rounds

VALUES = {"rack": "abcd", "site": "xy", "pair": "0123456789"}


@st.composite
def fleets(draw):
    hosts = [f"h{number}" for number in range(draw(st.integers(1, 25)))]
    domains = {host: tuple((by, draw(st.sampled_from(values))) for by, values in VALUES.items()) for host in hosts}
    rules = tuple(Spread(by, draw(st.integers(1, 3))) for by in draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True)))
    return hosts, domains, rules


@given(fleets(), st.data())
@settings(max_examples=400)
def test_the_next_in_line_is_always_the_first_that_fits(fleet, data):
    hosts, domains, rules = fleet
    crowd = Crowd(domains)
    line = Line(crowd, rules, hosts[::2])
    to_join = hosts[1::2]
    waiting, busy = list(hosts[::2]), []

    def fits(host):
        return all(sum(1 for other in busy if domain in domains[other]) < most for domain, most in limits(domains[host], rules))

    for _step in range(data.draw(st.integers(1, 80))):
        expected = next((host for host in waiting if fits(host)), None)
        what = data.draw(st.sampled_from(["go", "go", "end", "end", "join", "leave", "burst"]))
        if what == "go":
            host = line.first()
            assert host == expected
            assert line.first() == expected, "asked twice"
            if host is not None:
                line.leave(host)
                waiting.remove(host)
                crowd.count(host, 1)
                busy.append(host)
        elif what == "end" and busy:
            crowd.count(busy[0], -1)
            busy.pop(data.draw(st.integers(0, 0)))
        elif what == "join" and to_join:
            line.join(to_join[0])
            waiting.append(to_join.pop(0))
        elif what == "leave" and waiting:
            line.leave(waiting.pop(data.draw(st.integers(0, len(waiting) - 1))))
        elif what == "burst" and waiting:  # whatever the rules say, such as a parked host that fails by itself
            host = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            line.leave(host)
            crowd.count(host, 1)
            busy.append(host)
        assert len(line) == len(waiting)
    while busy or waiting:
        while (host := line.first()) is not None:
            line.leave(host)
            waiting.remove(host)
            crowd.count(host, 1)
            busy.append(host)
        assert busy, "somebody waits for nobody"
        crowd.count(busy.pop(0), -1)


RACKS = {f"h{number}": (("rack", "ab"[number % 2]), ("site", "x")) for number in range(10)}
BOUNDS = [
    ((Spread("rack", 1),), None, 2, 5),
    ((Spread("rack", 2),), None, 4, 3),
    ((Spread("rack", 2), Spread("site", 3)), None, 3, 4),
    ((Spread("rack", 2),), 3, 3, 4),
    ((), 3, 3, 4),
    ((), None, 10, 1),
    ((Spread("rack", 99),), None, 10, 1),
]


@pytest.mark.parametrize("spread, concurrency, hosts, turns", BOUNDS)
def test_how_many_at_once_and_how_many_times(spread, concurrency, hosts, turns):
    ring = Ring("all", "all", concurrency=concurrency, spread=spread)
    assert (at_once(ring, tuple(RACKS), RACKS), rounds(ring, tuple(RACKS), RACKS)) == (hosts, turns)
