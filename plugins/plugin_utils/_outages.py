# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of hosts whose checks failed, in change or just before it: whether that is an outage is asked elsewhere before their rescue begins.

A host in an outage goes back to the task that failed and does it again every few seconds. Each time renews its lease and its
revert timer. Once it passes, it goes on as if nothing had been; after L(Settings.max_wait) seconds the rollout ends, and hosts stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ansible_collections.onprem.rollout.plugins.plugin_utils._asks import Asks
from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._crosscheck import CrossCheck
from ansible_collections.onprem.rollout.plugins.plugin_utils._hostrun import HostRun
from ansible_collections.onprem.rollout.plugins.plugin_utils._orders import Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._stage import Place, Settings, Stage
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import Halt, State

OPEN = (State.CHANGING, State.PARKED, State.COMMITTING)


class Outages:
    def __init__(self, conductor: Conductor, runs: Mapping[str, HostRun], stage: Stage, asks: Asks, settings: Settings, tell: Callable[[Event], None]) -> None:
        self._conductor = conductor
        self._runs = runs
        self._stage = stage
        self._asks = asks
        self._settings = settings
        self._tell = tell
        self._check = CrossCheck()
        self._withheld: dict[str, float] = {}
        self._suffering: dict[str, None] = {}
        self._since: float | None = None
        self._why = ""

    def withholds(self, host: str) -> bool:
        """Whether its rescue, or its commit, must wait."""
        run = self._runs[host]
        return not run.restoring and (run.doubted or host in self._withheld)

    def explain(self, host: str, now: float) -> bool:
        """The host stands in its rescue. True unless that is its own or the release's fault."""
        run = self._runs[host]
        if not run.sick or self._conductor.state(host) not in OPEN:
            self._withheld.pop(host, None)
            return False
        since = self._withheld.setdefault(host, now)
        why = self._check.verdict(run.sick, since, now, host, before=not run.begun)
        if why is None:
            if not self._check.asking:
                self._ask(host, now)
            return True
        del self._withheld[host]
        run.sick = ()
        if why:
            self._suffer(host, why, now)
        return bool(why)

    def _ask(self, host: str, now: float) -> None:
        states = self._conductor.states()
        admitted = {host: run for host, run in self._runs.items() if states[host] is State.CHANGING and not (run.begun or run.dark)}
        if State.WAITING not in states.values() and any(run.outcome is None and not run.suffers for run in admitted.values()):
            return  # what they find before their change is soon known
        asked = self._check.open(states, now, [host for host, run in admitted.items() if run.sick or run.suffers])
        for witness in asked.hosts:
            self._asks.add(witness, asked.heard)
        if asked.hosts and self._stage.can_ask:
            self._tell(Event("asks", now, host, detail=self._runs[host].why))

    def _suffer(self, host: str, why: str, now: float) -> None:
        run = self._runs[host]
        run.suffers = True
        run.outcome = None
        run.doubted = self._stage.undo_failure(host) is Place.COMMIT
        run.later_until = now + self._settings.outage_interval
        self._suffering[host] = None
        self._why = f"an outage: {why}"
        if self._since is None:
            self._since = now
            self._tell(Event("outage", now, host, detail=why))

    def attend(self, now: float) -> list[str]:
        """Ask, see whether it is over, and say who is to be let stand as it is because it took too long."""
        self._asks.step()
        for host in [host for host in self._withheld if self._conductor.state(host) not in OPEN]:
            del self._withheld[host]
        for host in [host for host in self._suffering if not self._runs[host].suffers or self._conductor.state(host) not in OPEN]:
            del self._suffering[host]
        if not self._suffering and self._since is not None and self._conductor.halt is None:
            self._since = None
            self._tell(Event("outage", now))
        self._conductor.doubt = self._why if self._suffering else "it is asked whether there is an outage" if self._withheld else ""
        if not self._suffering or self._since is None:
            return []
        if not (self._conductor.halt is Halt.STOPPED and self._conductor.kept):
            if now - self._since < self._settings.max_wait:
                return []
            self._conductor.outlasted(Halt.UNJUDGED, self._why, now)
        return [host for host in self._suffering if not self._stage.busy(host)]

    def give_up(self) -> None:
        """The run failed, and so did what was asked."""
        self._check.give_up()
        self._asks.give_up()
        self._withheld.clear()
        self._suffering.clear()
        self._conductor.doubt = ""
