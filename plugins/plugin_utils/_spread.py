# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Failure domains: how many hosts of each are in change, and who is next when some of them are full.

Pure: no Ansible, no disk, no clock. A domain is a host variable and a value of it. Every host in change counts in all of its
domains, whatever ring or wave it is of; whether it may go in change is asked of the rules of its own ring.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush

from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Ring, Spread

Domain = tuple[str, str]
Limit = tuple[Domain, int]
Domains = Mapping[str, tuple[Domain, ...]]


def limits(domains: Iterable[Domain], rules: Iterable[Spread]) -> tuple[Limit, ...]:
    """The rules of a ring as they hold for one host: its domains, each with how many of it may be in change."""
    values = dict(domains)
    return tuple(((rule.by, values[rule.by]), rule.max) for rule in rules if rule.by in values)


class Crowd:
    """How many hosts of each domain are in change."""

    def __init__(self, domains: Domains) -> None:
        self.domains = domains
        self.left: list[Domain] = []
        self._counts: dict[Domain, int] = {}

    def count(self, host: str, change: int) -> None:
        """The host goes in change (1), or is not in change any more (-1)."""
        for domain in self.domains.get(host, ()) if change else ():
            self._counts[domain] = self._counts.get(domain, 0) + change
            if change < 0:
                self.left.append(domain)

    def has_room(self, limit: Limit) -> bool:
        domain, most = limit
        return self._counts.get(domain, 0) < most


class Line:
    """Hosts in order. The next one is the first whose domains all have room.

    Hosts with the same limits wait in one group, and a group whose turn has come in vain waits at a domain that was full until a host
    leaves that one. So a call costs what changed since the last one, and not what waits: of those at a domain only the first
    is called, and the one behind it only when that one has gone or turned out to wait for another domain too.
    """

    __slots__ = ("_crowd", "_rules", "_hosts", "_groups", "_ready", "_stuck", "_seen", "_joined")

    def __init__(self, crowd: Crowd, rules: tuple[Spread, ...] = (), hosts: Iterable[str] = ()) -> None:
        self._crowd = crowd
        self._rules = rules
        self._hosts: dict[str, None] = {}
        self._groups: dict[tuple[Limit, ...], deque[tuple[int, str]]] = {}
        self._ready: list[tuple[int, tuple[Limit, ...]]] = []
        self._stuck: dict[Domain, list[tuple[int, tuple[Limit, ...]]]] = {}
        self._seen = 0
        self._joined = 0
        for host in hosts:
            self.join(host)

    def __len__(self) -> int:
        return len(self._hosts)

    def join(self, host: str) -> None:
        where = limits(self._crowd.domains.get(host, ()), self._rules) if self._rules else ()
        group = self._groups.setdefault(where, deque())
        if not group:
            heappush(self._ready, (self._joined, where))
        group.append((self._joined, host))
        self._hosts[host] = None
        self._joined += 1

    def leave(self, host: str) -> None:
        self._hosts.pop(host, None)

    def first(self) -> str | None:
        """The next host, which stays in line until it leaves; None when nobody's domains have room."""
        self._call_who_waited()
        while self._ready:
            number, where = heappop(self._ready)
            group = self._groups[where]
            while group and group[0][1] not in self._hosts:
                group.popleft()
            full = None
            for limit in where:
                if not self._crowd.has_room(limit):
                    full = full or limit[0]
                elif limit[0] in self._stuck:
                    self._call(limit[0])
            fits = bool(group) and group[0][0] == number and full is None
            if group and full is not None:
                heappush(self._stuck.setdefault(full, []), (group[0][0], where))
            elif group:
                heappush(self._ready, (group[0][0], where))
            if fits:
                return group[0][1]
        return None

    def _call_who_waited(self) -> None:
        if self._stuck:
            for index in range(self._seen, len(self._crowd.left)):
                self._call(self._crowd.left[index])
        self._seen = len(self._crowd.left)

    def _call(self, domain: Domain) -> None:
        waiting = self._stuck.get(domain)
        if waiting:
            heappush(self._ready, heappop(waiting))
            if not waiting:
                del self._stuck[domain]


def at_once(ring: Ring, wave: Sequence[str], domains: Domains) -> int:
    """The most hosts of a wave that concurrency and spread ever let change at the same time."""
    bounds = [ring.concurrency or len(wave), len(wave)]
    for rule in ring.spread:
        bounds.append(sum(min(number, rule.max) for number in _sizes(rule, wave, domains)))
    return min(bounds)


def rounds(ring: Ring, wave: Sequence[str], domains: Domains) -> int:
    """How many changes, one after the other, a wave takes at least."""
    bounds = [-(-len(wave) // (ring.concurrency or len(wave)))]
    for rule in ring.spread:
        bounds.append(max((-(-number // rule.max) for number in _sizes(rule, wave, domains)), default=1))
    return max(bounds)


def _sizes(rule: Spread, wave: Sequence[str], domains: Domains) -> Iterable[int]:
    return Counter(value for host in wave for by, value in domains.get(host, ()) if by == rule.by).values()
