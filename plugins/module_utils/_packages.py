# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packages as part of a snapshot: which versions there were, and their files, so that they come back without a repository.

packages/<snapshot>.json     what was installed; written last, when every file it names is on disk
packages/files/<sha256>      package files, shared by all snapshots

Tracked are the named packages and those that the manager would change along with them. Of these a restore brings back
the version, the hold and the auto mark; it removes what came with the change, and leaves alone what others did meanwhile.
L(_apt) and L(_dnf) have the same methods; what is decided here is the same for both.
"""

import contextlib
import os
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

from ._errors import Refused, RolloutError
from ._process import run
from ._store import free_bytes, fsync_dir, local, read_json, remove_quietly, show, write_json
from ._tree import pump

SCHEMA = 1
AUTO = "auto"
RPM_FAMILY = {"fedora", "rhel", "centos", "suse"}
Manager = Any
Packages = Dict[str, Dict[str, Any]]
Config = Dict[str, Dict[str, str]]
Looked = NamedTuple(
    "Looked",
    [
        ("manager", Optional[Manager]),
        ("named", List[str]),
        ("packages", Packages),
        ("tracked", List[str]),
        ("config", Config),
        ("paths", List[str]),
    ],
)
Plan = NamedTuple("Plan", [("install", List[str]), ("gone", Packages), ("marks", List[str]), ("lines", List[str])])
NOTHING = Looked(None, [], {}, [], {}, [])


def manager_of(command: Any = run, root: str = "/", wanted: str = AUTO) -> Optional[Manager]:
    """The package manager of the host, or the wanted one; None if it is not there."""
    import shutil  # here, because most hosts need none of them

    from . import _apt, _dnf

    there = {}  # type: Dict[str, Manager]
    if shutil.which("apt-get") and os.path.isfile(os.path.join(root, "var/lib/dpkg/status")):
        there["apt"] = _apt.Apt(command, root)
    if shutil.which("dnf") and shutil.which("rpm"):
        there["dnf"] = _dnf.Dnf(command, root)
    if wanted == AUTO and len(there) == 2:
        wanted = "dnf" if RPM_FAMILY.intersection(_family(root)) else "apt"
    return next(iter(there.values()), None) if wanted == AUTO else there.get(wanted)


def _family(root: str) -> List[str]:
    """What a host that has the tools of both is and descends from, as /etc/os-release has it."""
    with contextlib.suppress(OSError), open(os.path.join(root, "etc/os-release"), encoding="utf-8", errors="replace") as source:
        lines = [line.strip().partition("=") for line in source]
        return [word for name, _is, value in lines if name in ("ID", "ID_LIKE") for word in value.strip("\"'").split()]
    return []


def manager_for(state_dir: str, snapshot: str, command: Any = run) -> Optional[Manager]:
    """The package manager that a snapshot's packages are of, as far as that can be read."""
    wanted = AUTO
    with contextlib.suppress(RolloutError):
        wanted = load(state_dir, snapshot)["manager"]
    return manager_of(command, wanted=wanted)


def require(names: List[str], manager: Optional[Manager], wanted: str = AUTO) -> None:
    """Refuse names on a host where nobody could put packages back, names that are none, and one that is given twice."""
    if not names:
        return
    if manager is None:
        raise Refused(
            "packages is {0}, but this host has {1}. Leave packages out and name the files of the service in paths, or correct package_manager. "
            "Nothing was touched.".format(", ".join(names), "neither apt nor dnf" if wanted == AUTO else "no " + wanted),
            "no_package_manager",
        )
    bare = [name.partition("=")[0] for name in names]
    wrong = [name for name in names if not manager.named(name.partition("=")[0]) or name.endswith("=")]
    twice = sorted({name for name in bare if bare.count(name) > 1})
    problems = ["{0!r} is no name of a package of {1}, nor name=version".format(name, manager.manager) for name in wrong]
    problems += ["{0} is given {1} times".format(name, bare.count(name)) for name in twice]
    if problems:
        raise Refused("Not good as packages: {0}. Nothing was touched.".format("; ".join(problems)), "bad_package")


def look(names: List[str], manager: Optional[Manager]) -> Looked:
    """What is installed, and what of it a change of the named packages would touch. Refused when it cannot be put back so."""
    require(names, manager)
    if not names or manager is None:
        return NOTHING
    versions = {name.partition("=")[0]: name.partition("=")[2] for name in names if "=" in name}
    named = sorted(name.partition("=")[0] for name in names)
    packages = manager.look()
    tracked = sorted(set(manager.keys(named, packages)) | manager.pulled_along(named, versions, packages))
    broken = [
        "{0} is {1}".format(key, packages[key]["state"]) for key in tracked if key in packages and packages[key]["state"] not in ("installed", "config-files")
    ]
    if broken:
        raise Refused(
            "The packages of this host are not in order: {0}. Nothing was touched. Repair them first, with: {1}".format("; ".join(broken), manager.remedy),
            "broken_package",
        )
    installed = {key: packages[key] for key in tracked if _installed(packages, key)}
    config = manager.config(installed)
    paths = sorted({path + beside for files in config.values() for path in files for beside in ("",) + manager.beside})
    return Looked(manager, named, packages, tracked, config, paths + manager.marks_paths())


def _installed(packages: Packages, key: str) -> bool:
    return key in packages and packages[key]["state"] != "config-files"


def secure(state_dir: str, snapshot: str, looked: Looked, min_free: int = 0) -> None:
    """Have the files of the tracked packages on disk, then write what was installed. RolloutError when one cannot be had."""
    if looked.manager is None:
        return
    top, incoming = _place(state_dir, "files"), _place(state_dir, "incoming")
    tracked = {key: looked.packages[key] for key in looked.tracked if _installed(looked.packages, key)}
    files = _secured_before(state_dir, tracked)
    missing = {key: facts for key, facts in tracked.items() if key not in files}
    needed = sum(facts["size"] for facts in missing.values())
    free = free_bytes(state_dir)
    if missing and needed + min_free > free:
        raise Refused(
            "Too little disk at {0}: the files of {1} may need {2} bytes and {3} are to stay free (min_free), but only {4} are free. Nothing "
            "was touched.".format(show(state_dir), ", ".join(sorted(missing)), needed, min_free, free),
            "no_space",
            needed=needed,
            free=free,
        )
    import shutil

    shutil.rmtree(local(incoming), ignore_errors=True)
    for directory in (top, incoming):
        os.makedirs(local(directory), 0o700, exist_ok=True)
    try:
        for key, path in (looked.manager.find(missing, incoming) if missing else {}).items():
            files[key] = _keep(top, path, incoming)
    finally:
        shutil.rmtree(local(incoming), ignore_errors=True)
    fsync_dir(local(top))
    fsync_dir(local(os.path.dirname(top)))
    fsync_dir(local(state_dir))
    kept = ("name", "version", "arch", "state", "hold", "auto")
    manifest = {
        "schema": SCHEMA,
        "manager": looked.manager.manager,
        "named": looked.named,
        "tracked": looked.tracked,
        "packages": {key: {field: facts[field] for field in kept} for key, facts in looked.packages.items()},
        "config": looked.config,
        "files": files,
    }
    write_json(local(_manifest_path(state_dir, snapshot)), manifest)


def _secured_before(state_dir: str, wanted: Packages) -> Dict[str, str]:
    """The files that another snapshot secured of the same versions, as far as they are still whole."""
    found = {}  # type: Dict[str, str]
    for snapshot in snapshots(state_dir):
        with contextlib.suppress(RolloutError):
            manifest = load(state_dir, snapshot)
            for key, facts in wanted.items():
                there, file = manifest["packages"].get(key), manifest["files"].get(key)
                same = there and all(there[field] == facts[field] for field in ("version", "arch"))
                if key not in found and same and file and _whole(state_dir, file):
                    found[key] = file
    return found


def _keep(top: str, path: str, incoming: str) -> str:
    """Copy a package's file into the store; its SHA-256, which names it."""
    temp = os.path.join(incoming, "file.new")
    with open(local(path), "rb") as source:
        target = os.open(local(temp), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            sha256 = pump(source.fileno(), target)
            os.fsync(target)
        finally:
            os.close(target)
    os.replace(local(temp), local(os.path.join(top, sha256)))
    return sha256


def differences(state_dir: str, snapshot: str, manager: Optional[Manager]) -> List[str]:
    """What put_back() would do now, a line for each package."""
    if manager is None or snapshot not in snapshots(state_dir):
        return []
    return plan(load(state_dir, snapshot), manager.look()).lines


def plan(manifest: Dict[str, Any], now: Packages) -> Plan:
    """What has to be installed, what has to go and what has to be marked, by what was and what is."""
    before, lines = manifest["packages"], []
    install, gone, marks = [], {}, []  # type: List[str], Packages, List[str]
    for key in manifest["tracked"]:
        there = now.get(key, {"version": None, "state": "absent", "hold": False, "auto": False})
        if not _installed(before, key):
            continue
        wanted = before[key]
        if (there["version"], there["state"]) != (wanted["version"], "installed"):
            install.append(key)
            lines.append("package {0}: {1} -> {2}".format(key, there["version"] or "absent", wanted["version"]))
        marks += ["{0}: {1} {2} -> {3}".format(key, mark, there[mark], wanted[mark]) for mark in ("hold", "auto") if there[mark] is not wanted[mark]]
    came = {key for key in now if _installed(now, key) and not _installed(before, key)}
    came |= {key for key in now if key in manifest["tracked"] and key not in before}
    tracked = {key for key in now if key in manifest["tracked"] or now[key]["name"] in manifest["named"]}
    for key in sorted(_not_needed({key for key in came if key in tracked or now[key]["auto"]}, tracked, now)):
        gone[key] = dict(now[key], keep=key in before)
        lines.append("package {0}: {1} -> absent".format(key, now[key]["version"]))
    return Plan(install, gone, marks, lines + ["package " + mark for mark in marks])


def _not_needed(came: Set[str], tracked: Set[str], now: Packages) -> Set[str]:
    """Those that came along and that nobody needs who stays: what somebody else installed meanwhile keeps what it needs."""
    going = set(came)
    while True:
        needed = {name for key, facts in now.items() if key not in going and key not in tracked and _installed(now, key) for name in facts["needs"]}
        staying = {key for key in going if key not in tracked and needed.intersection(now[key]["provides"])}
        if not staying:
            return going
        going -= staying


def put_back(state_dir: str, snapshot: str, manager: Optional[Manager]) -> Tuple[List[str], List[str]]:
    """Bring the packages back, from the files that secure() kept; what was done, and what did not work. Can be repeated.

    Nothing is raised: whatever is wrong with the packages, files and services come back after them.
    """
    try:
        return _put_back(load(state_dir, snapshot), state_dir, manager)
    except (RolloutError, OSError) as error:
        return [], ["the packages are not back: {0}".format(error)]


def _put_back(manifest: Dict[str, Any], state_dir: str, manager: Optional[Manager]) -> Tuple[List[str], List[str]]:
    if manager is None or manager.manager != manifest["manager"]:
        return [], ["the snapshot has packages of {0}, which this host does not have any more".format(manifest["manager"])]
    now = manager.look()
    todo = plan(manifest, now)
    if not todo.lines:
        return [], []
    damaged = [key for key in todo.install if not _whole(state_dir, manifest["files"][key])]
    problems = [
        "the file of package {0} {1}, {2}, is damaged".format(key, manifest["packages"][key]["version"], _file_path(state_dir, manifest["files"][key]))
        for key in damaged
    ]
    install = [key for key in todo.install if key not in damaged]
    said = []  # type: List[str]
    if install or todo.gone:
        files = {key: _file_path(state_dir, manifest["files"][key]) for key in install}
        said += manager.put_back(files, todo.gone, {key: manifest["config"].get(key, {}) for key in install})
        now = manager.look()
    if plan(manifest, now).marks:
        said += manager.mark({key: manifest["packages"][key] for key in manifest["tracked"] if _installed(manifest["packages"], key)}, now)
        now = manager.look()
    left = [line for line in plan(manifest, now).lines if not any(line.startswith("package {0}:".format(key)) for key in damaged)]
    if left:
        problems.append("not put back: {0}{1}".format(", ".join(left), " ({0})".format("; ".join(said)) if said else ""))
    return todo.lines, problems


# --- the store ---


def _place(state_dir: str, name: str) -> str:
    return os.path.join(state_dir, "packages", name)


def _file_path(state_dir: str, sha256: str) -> str:
    return os.path.join(_place(state_dir, "files"), sha256)


def _manifest_path(state_dir: str, snapshot: str) -> str:
    return _place(state_dir, snapshot + ".json")


def _whole(state_dir: str, sha256: str) -> bool:
    try:
        with open(local(_file_path(state_dir, sha256)), "rb") as source:
            return bool(pump(source.fileno(), None) == sha256)
    except OSError:
        return False


def snapshots(state_dir: str) -> List[str]:
    """The ids of the snapshots that have packages."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(name[:-5] for name in os.listdir(local(_place(state_dir, ""))) if name.endswith(".json"))
    return []


def load(state_dir: str, snapshot: str) -> Dict[str, Any]:
    """What was installed when the snapshot was taken. RolloutError(snapshot) when that cannot be read."""
    path = _manifest_path(state_dir, snapshot)
    try:
        manifest = read_json(local(path))
    except (OSError, ValueError) as error:
        raise RolloutError("The packages of the snapshot, {0}, cannot be read: {1}. Nothing was put back.".format(show(path), error), "snapshot") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise RolloutError(
            "The packages of the snapshot, {0}, are missing or have another schema than {1}. Nothing was put back.".format(show(path), SCHEMA), "snapshot"
        )
    return manifest


def damaged(state_dir: str, snapshot: str) -> List[str]:
    """The packages of a snapshot whose files are not what they were."""
    if snapshot not in snapshots(state_dir):
        return []
    return sorted(key for key, file in load(state_dir, snapshot)["files"].items() if not _whole(state_dir, file))


def prune(state_dir: str, kept: List[str]) -> None:
    """Forget the packages of all snapshots but the C(kept) ones, and the files that none of these names."""
    used = set()  # type: Set[str]
    for snapshot in snapshots(state_dir):
        if snapshot not in kept:
            remove_quietly(local(_manifest_path(state_dir, snapshot)))
    for snapshot in snapshots(state_dir):
        try:
            used.update(load(state_dir, snapshot)["files"].values())
        except RolloutError:
            return  # nobody knows what it needs
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(local(_place(state_dir, "files"))):
            if name not in used:
                remove_quietly(local(os.path.join(_place(state_dir, "files"), name)))
