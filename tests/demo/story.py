# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo as a story that checks itself: `make demo`, or tests/demo/run.

Eight hosts run shop 1.0. It is planned and upgraded to 2.0, wave by wave; then 2.1, which is bad, is stopped at its
canary and the canary is restored. After each step the hosts themselves are asked, over HTTP and by their files: the
exit code is 0 only if everything was as told here. Nothing is left behind but, with KEEP=1, the working directory.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import build_releases
import fleet
import sight

REPOSITORY = Path(__file__).resolve().parents[2]
COLLECTION = ("galaxy.yml", "meta", "playbooks", "plugins", "roles")
CHECK = "shop is healthy"  # as named in inventories/demo
Sights = dict[str, sight.Sight]


class NotAsToldError(Exception):
    """The hosts are not what the story says they are."""


class Stage:
    """The working directory, the commands run against it, and the words between them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            "ONPREM_DEMO_DIR": str(directory),
            "ANSIBLE_CONFIG": str(REPOSITORY / "tests" / "demo" / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(directory / "collections"),
            "ANSIBLE_HOME": str(directory / "ansible"),
            "ANSIBLE_REMOTE_TMP": str(directory / "ansible" / "remote"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "XDG_STATE_HOME": str(directory / "state"),
        }
        self.colour = sys.stdout.isatty()

    def say(self, text: str, style: str = "1") -> None:
        print(f"\033[{style}m{text}\033[0m" if self.colour else text, flush=True)

    def proven(self, text: str) -> None:
        self.say(f"  ✓ {text}", "32")

    def install_collection(self) -> None:
        """A copy, as ansible-galaxy would install it: not even a __pycache__ is left in the repository."""
        target = self.directory / "collections" / "ansible_collections" / "onprem" / "rollout"
        target.mkdir(parents=True)
        for name in COLLECTION:
            source = REPOSITORY / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, target / name)

    def playbook(self, verb: str, version: str | None = None) -> int:
        """Run a playbook as a user would, in the foreground. Returns its exit code."""
        argv = ["ansible-playbook", f"onprem.rollout.{verb}", "-i", "inventories/demo"]
        if version is not None:
            argv += ["-e", f"@{self.directory}/release-{version}.yml"]
        shown = shlex.join(argv).replace(str(self.directory), "$ONPREM_DEMO_DIR")
        self.say(f"\n$ {shown}", "1;36")
        # a session of its own, so that Ctrl-C reaches it once, from here, and not half of it from the terminal
        child = subprocess.Popen(argv, cwd=REPOSITORY, env={**os.environ, **self.environment}, start_new_session=True)
        try:
            code = child.wait()
        except BaseException:
            end_group(child)
            raise
        self.say(f"exit code {code}", "1;36")
        return code


def end_group(child: subprocess.Popen[bytes], patience: float = 10) -> None:
    """Ask as Ctrl-C would, then insist; running modules get O(patience) seconds to come to an end."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)
            return


def expect(true: bool, told: str, seen: object) -> None:
    if not true:
        raise NotAsToldError(f"told: {told}\nseen: {seen}")


def serves(hosts: Sights, version: str) -> None:
    """Every host answers with this version and is healthy."""
    wrong = {name: (host.version, host.health) for name, host in hosts.items() if host.version != version or host.health[0] != 200}
    expect(not wrong, f"every host serves shop {version} and is healthy", wrong)


def unchanged(before: Sights, after: Sights) -> None:
    """Byte for byte, mode for mode, mtime for mtime."""
    wrong = {
        name: sorted(path for path in host.tree.keys() | before[name].tree.keys() if host.tree.get(path) != before[name].tree.get(path))
        for name, host in after.items()
        if host.tree != before[name].tree
    }
    expect(not wrong, "the files of every host are what they were", wrong)


def restarted(before: Sights, after: Sights) -> list[str]:
    return [name for name, host in after.items() if host.starts != before[name].starts]


def plan(stage: Stage) -> None:
    before = sight.look_all(stage.directory)
    serves(before, "1.0")
    stage.say(f"Eight hosts run shop 1.0. What would {build_releases.GOOD} do?")
    code = stage.playbook("plan", build_releases.GOOD)
    expect(code == 2, "a plan with something to do exits with 2", code)
    after = sight.look_all(stage.directory)
    unchanged(before, after)
    expect(not restarted(before, after), "a plan restarts nothing", restarted(before, after))
    stage.proven("planning changed nothing: all files are the same, no process was restarted")


def good_release(stage: Stage) -> None:
    before = sight.look_all(stage.directory)
    stage.say(f"\nRoll {build_releases.GOOD} out: early, then standard, then critical hosts, wave by wave.")
    code = stage.playbook("upgrade", build_releases.GOOD)
    expect(code == 0, "the upgrade exits with 0", code)
    after = sight.look_all(stage.directory)
    serves(after, build_releases.GOOD)
    expect(len(restarted(before, after)) == len(after), "every process was restarted", restarted(before, after))
    for name, host in after.items():
        phase = host.record.get("transaction", {}).get("phase")
        expect(phase == "committed", f"{name}'s own record says committed", phase)
    in_ring_order(after)
    stage.proven("asked over HTTP, all eight hosts serve 2.0 and are healthy; each record says committed")
    stage.proven("no standard host began before all early ones were committed, no critical one before all standard ones")


def in_ring_order(hosts: Sights) -> None:
    for earlier, later in (("early", "standard"), ("standard", "critical")):
        ended = max(host.record["history"][-1]["ended"] for name, host in hosts.items() if name.startswith(earlier))
        began = min(host.record["history"][-1]["began"] for name, host in hosts.items() if name.startswith(later))
        expect(ended <= began, f"{later} begins after {earlier} ended", f"{earlier} ended {ended}, {later} began {began}")


def bad_release(stage: Stage) -> None:
    before = sight.look_all(stage.directory)
    stage.say(f"\nNow {build_releases.BAD}. It starts, but answers 500 to /health: its catalogue was cut off in the build.")
    code = stage.playbook("upgrade", build_releases.BAD)
    expect(code == 2, "a halted upgrade exits with 2, although its canary was restored", code)
    after = sight.look_all(stage.directory)
    touched = restarted(before, after)
    expect(len(touched) == 1 and touched[0].startswith("early"), "one early host, the canary, was touched and no other", touched)
    canary = touched[0]
    sick = after[canary].sick_answers - before[canary].sick_answers
    expect(sick > 0, f"{canary} really ran {build_releases.BAD} and answered 500", f"{sick} such answers")
    record = after[canary].record["transaction"]
    told = (record["phase"], record["release"]["version"], after[canary].record["installed"]["version"])
    expect(told == ("restored", build_releases.BAD, build_releases.GOOD), f"{canary}'s own record says restored", told)
    expect(CHECK in (record["reason"] or ""), f"the reason names the check {CHECK!r}", record["reason"])
    serves(after, build_releases.GOOD)
    unchanged(before, after)
    stage.proven(f"the canary {canary} ran 2.1, answered 500 to {sick} checks, and serves {after[canary].version} again")
    stage.proven(f"its tree is byte for byte what it was: sha256 {sight.digest(before[canary].tree)[:16]}… before")
    stage.say(f"    {'':<48} {sight.digest(after[canary].tree)[:16]}… after", "32")
    stage.proven("the other seven hosts were never touched: same files, same processes, 2.0")


def status(stage: Stage, wanted: int) -> None:
    code = stage.playbook("status")
    expect(code == wanted, f"status exits with {wanted}", code)


def tell(stage: Stage) -> None:
    began = time.monotonic()
    stage.install_collection()
    build_releases.build(stage.directory)
    fleet.up(stage.directory)
    plan(stage)
    good_release(stage)
    status(stage, 0)
    bad_release(stage)
    status(stage, 2)
    stage.say(f"\nAll of it was as told, in {time.monotonic() - began:.0f} s. To go on, on your own hosts (README.md):", "1;32")
    stage.say("  ansible-playbook onprem.rollout.plan -i inventories/example -e @inventories/release.yml")


def left_behind(directory: Path) -> list[int]:
    """Processes that were started with this working directory in their environment, by pid."""
    marker = f"ONPREM_DEMO_DIR={directory}".encode()
    pids = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if marker in entry.read_bytes().split(b"\0"):
                pids.append(int(entry.parent.name))
    return pids


def clear(stage: Stage) -> None:
    fleet.down(stage.directory)
    for pid in left_behind(stage.directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    gone = fleet.wait_until(lambda: not left_behind(stage.directory))
    expect(gone, "no process is left behind", left_behind(stage.directory))
    if os.environ.get("KEEP") != "1":
        shutil.rmtree(stage.directory)
        return
    settings = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in stage.environment.items())
    (stage.directory / "environment").write_text(settings, encoding="utf-8")
    stage.say(f"\nKept. To go on with this fleet: . {stage.directory}/environment; tests/demo/fleet.py up {stage.directory}")


@contextlib.contextmanager
def a_stage() -> Iterator[Stage]:
    stage = Stage(Path(tempfile.mkdtemp(prefix="onprem-demo.")).resolve())
    signal.signal(signal.SIGTERM, lambda *_args: sys.exit(128 + signal.SIGTERM))
    try:
        yield stage
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not leave the fleet running
            signal.signal(number, signal.SIG_IGN)
        clear(stage)


def main() -> int:
    if shutil.which("ansible-playbook") is None:
        print("demo: ansible-playbook is not in PATH; run `make demo`, which sets it up", file=sys.stderr)
        return 1
    try:
        with a_stage() as stage:
            tell(stage)
    except KeyboardInterrupt:
        print("\ndemo: interrupted; the fleet was taken down", file=sys.stderr)
        return 130
    except (NotAsToldError, fleet.FleetError) as error:
        print(f"\ndemo: not as the story says\n{error}\nlook at it with: KEEP=1 make demo", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
