# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packages of Debian and its relatives: apt is asked what a change would pull along, dpkg puts back without a repository.

A package is known by its name, or by name:arch if it is of another architecture than the host.
"""

import contextlib
import glob
import os
import re
import tempfile
from typing import Any, Dict, List, Set, Tuple

from . import _apt_alone, _dpkg
from ._errors import Refused, RolloutError
from ._process import last_line

NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?\Z")
ASK = 120.0
PATIENCE = 900.0
STATE = ("Package", "Version", "Architecture", "db:Status-Want", "db:Status-Status", "db:Status-Eflag")
FIELDS = STATE + ("Depends", "Pre-Depends", "Breaks", "Conflicts", "Provides", "Installed-Size")
FORCED = "--force-confold,downgrade,overwrite,depends,breaks,conflicts,remove-reinstreq,hold"
MENTIONED = re.compile(r"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]*)")
PATIENT = ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=15", "-o", "Acquire::https::Timeout=15"]
HARMLESS = "#!/bin/sh\nexit 0\n"
Packages = Dict[str, Dict[str, Any]]


class Apt:
    """The packages below C(root)."""

    manager = tool = "apt"
    remedy = "dpkg --configure -a; apt-get --fix-broken install"
    beside = (".dpkg-dist", ".dpkg-old", ".dpkg-new")

    def __init__(self, command: Any, root: str = "/", options: Any = ()) -> None:
        self.command = command
        self.root = root
        self.admindir = os.path.join(root, "var/lib/dpkg")
        self.dpkg = ["dpkg"] + ([] if root == "/" else ["--root=" + root]) + list(options)

    @staticmethod
    def named(text: str) -> bool:
        """Whether it can be the name of a package."""
        return bool(NAME.match(text))

    # --- looking ---

    def look(self) -> Packages:
        """Every package that dpkg knows: version, arch, state, hold, auto, what it needs and provides, size in bytes."""
        native = self._ask(self.dpkg + ["--print-architecture"]).strip()
        form = "\x1f".join("${" + field + "}" for field in FIELDS) + "\x1e"
        automatic = self._automatic()
        packages = {}  # type: Packages
        for row in self._whole_output(self._dpkg_query() + ["-W", "-f", form]).split("\x1e"):
            if "\x1f" not in row:
                continue
            name, version, arch, want, state, flag, depends, before, breaks, conflicts, provides, size = row.split("\x1f")
            if state == "not-installed":
                continue
            key = name if arch in (native, "all") else "{0}:{1}".format(name, arch)
            packages[key] = {
                "name": name,
                "version": version,
                "arch": arch,
                "state": state if flag == "ok" else "broken",
                "hold": want == "hold",
                "auto": (name, native if arch == "all" else arch) in automatic,
                "needs": MENTIONED.findall(depends + "," + before),
                "avoids": MENTIONED.findall(breaks + "," + conflicts),
                "provides": [name] + MENTIONED.findall(provides),
                "size": int(size) * 1024 if size.isdigit() else 0,
            }
        return packages

    def _automatic(self) -> Set[Any]:
        """The packages that apt installed only because another one needs them: what apt-mark reads too, at a tenth of its time."""
        found = set()
        with contextlib.suppress(FileNotFoundError), open(os.path.join(self.root, "var/lib/apt/extended_states"), encoding="utf-8") as source:
            for text in source.read().split("\n\n"):
                fields = dict(_dpkg.paragraph(text))
                if fields.get("Auto-Installed") == "1":
                    found.add((fields.get("Package"), fields.get("Architecture")))
        return found

    def pulled_along(self, names: List[str], versions: Dict[str, str], packages: Packages) -> Set[str]:
        """The packages that apt would change to install these; empty if apt cannot tell. Refused if it lacks a wanted version."""
        wanted = ["{0}={1}".format(name, versions[name]) if name in versions else name for name in names]
        code, output = self.command(self._env(self._apt("apt-cache", "show") + wanted), ASK)
        if code == 0 and _apt_alone.alone(names, output.split("\n\n"), packages, self._compare):
            return set()
        ask = self._env(self._apt("apt-get", "-s", "-y", "--allow-downgrades", "--allow-change-held-packages", "install") + wanted)
        code, output = self.command(ask, ASK)
        if code != 0 and versions:  # perhaps it was published since the lists were fetched
            self.command(self._env(self._apt("apt-get", "-q", "update") + PATIENT), PATIENCE)
            code, output = self.command(ask, ASK)
        if code == 0:
            return {match.group(1) for match in re.finditer(r"^(?:Inst|Remv) (\S+)", output, re.M)}
        missing = re.findall(r"^E: (Version .* was not found|Unable to locate package .*)$", output, re.M) if versions else []
        if missing:
            raise Refused(
                "apt cannot install {0}: {1}. Nothing was touched. Publish it in a repository of this host, or correct packages.".format(
                    " ".join(wanted), "; ".join(missing)
                ),
                "no_package",
            )
        return set()

    def _compare(self, asked: List[Tuple[str, str, str]]) -> List[bool]:
        """For each (version, relation, version) whether it holds, as dpkg has it; in one run."""
        script = 'while [ $# -gt 0 ]; do dpkg --compare-versions "$1" "$2" "$3" && echo yes || echo no; shift 3; done'
        told = self._ask(["sh", "-c", script, "sh"] + [word for one in asked for word in one]) if asked else ""
        return [word == "yes" for word in told.split()]

    @staticmethod
    def keys(names: List[str], _packages: Packages) -> List[str]:
        """How the packages of these names are known."""
        return names

    def config(self, packages: Packages) -> Dict[str, Dict[str, str]]:
        """The configuration files of these packages, on the disk or not, each with the digest that dpkg has of its pristine content."""
        if not packages:
            return {}
        form = "${Package}\x1f${Architecture}\x1f${Conffiles}\x1e"
        keys = {(facts["name"], facts["arch"]): key for key, facts in packages.items()}
        found = {}
        for row in self._whole_output(self._dpkg_query() + ["-W", "-f", form] + [_qualified(packages[key]) for key in sorted(packages)]).split("\x1e"):
            if "\x1f" in row:
                name, arch, text = row.split("\x1f")
                found[keys[(name, arch)]] = _dpkg.conffiles_of(text)
        return found

    @staticmethod
    def marks_paths() -> List[str]:
        """Files that hold marks: none, they are put back by commands."""
        return []

    # --- securing ---

    def find(self, packages: Packages, directory: str) -> Dict[str, str]:
        """For each package the path of a good file of exactly its version, made below the directory where there was none.

        RolloutError(package) for one that cannot be had.
        """
        cache = os.path.join(self.root, "var/cache/apt/archives")
        found = {key: os.path.join(cache, _file_name(facts)) for key, facts in packages.items()}
        missing = {key: packages[key] for key in sorted(packages) if not self._good(found[key], packages[key])}
        self._download(missing, directory)
        for key, facts in missing.items():
            found[key] = os.path.join(directory, _file_name(facts))
            if not self._good(found[key], facts):
                self._rebuild(key, facts, found[key])
        return found

    def _good(self, path: str, facts: Dict[str, Any]) -> bool:
        """Whether this is the package's file, whole: dpkg-deb reads it to its end."""
        if not os.path.isfile(path):
            return False
        code, output = self.command(self._env(["dpkg-deb", "-f", path, "Package", "Version", "Architecture"]), ASK)
        told = dict(_dpkg.paragraph(output)) if code == 0 else {}
        if told != {"Package": facts["name"], "Version": facts["version"], "Architecture": facts["arch"]}:
            return False
        return bool(self.command(self._env(["dpkg-deb", "-c", path]), PATIENCE)[0] == 0)

    def _download(self, packages: Packages, directory: str) -> None:
        """What the repositories still have, into the directory. One that they lack must not keep the others away."""
        wanted = ["{name}:{arch}={version}".format(**facts) for _key, facts in sorted(packages.items())]
        fetch = self._env(["sh", "-c", 'cd "$0" && exec "$@"', directory] + self._apt("apt-get", "-q") + PATIENT + ["download"])
        if wanted and self.command(fetch + wanted, PATIENCE)[0] != 0 and len(wanted) > 1:
            for one in wanted:
                self.command(fetch + [one], PATIENCE)

    def _rebuild(self, key: str, facts: Dict[str, Any], target: str) -> None:
        from . import _debfile  # here, because it is seldom needed and tarfile costs a host a while

        try:
            status = self._whole_output(self._dpkg_query() + ["-s", _qualified(facts)])
            _debfile.rebuild(target, self.root, status, _dpkg.info_files(self.admindir, facts["name"], facts["arch"]), self._diverted(facts["name"]))
            why = "" if self._good(target, facts) else "dpkg-deb cannot read what was built"
        except (RolloutError, OSError) as error:
            why = str(error)
        if why:
            raise RolloutError(
                "Package {0} {1} is in no repository of this host and not in apt's cache, and cannot be rebuilt from its installed files: {2}. "
                "Put its file into /var/cache/apt/archives, or leave {0} out of packages.".format(key, facts["version"], why),
                "package",
            )

    def _diverted(self, name: str) -> Dict[str, str]:
        """The files of this package that others diverted: where each belongs, and where it is."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            with open(os.path.join(self.admindir, "diversions"), encoding="utf-8", errors="surrogateescape") as source:
                lines = source.read().split("\n")
            for index in range(0, len(lines) - 2, 3):
                if lines[index + 2] != name:
                    found[lines[index]] = lines[index + 1]
        return found

    # --- putting back ---

    def put_back(self, files: Dict[str, str], gone: Packages, config: Dict[str, Dict[str, str]]) -> List[str]:
        """Install these files over whatever is there, without what is C(gone); what dpkg said when it failed.

        C(gone) packages are purged, but for those whose C(keep) is true: they were removed and not purged before.
        C(config) is what config() said of the packages to be installed.
        """
        said = []  # type: List[str]
        with _dpkg.locked(self.admindir):
            for verb, keep in (("--remove", True), ("--purge", False)):
                names = sorted(key for key, facts in gone.items() if bool(facts.get("keep")) is keep)
                said += self._change([verb] + names, names) if names else []
            if files:
                said += self._change(["--unpack", "--auto-deconfigure"] + sorted(files.values()), sorted(files))
            said += self._run(["--configure", "-a"])
        for key in sorted(config):
            _dpkg.set_conffiles(self.root, self.admindir, key, config[key])
        return said

    def _change(self, argv: List[str], names: List[str]) -> List[str]:
        """Run dpkg; if it fails, once more with the scripts of the packages that are leaving made harmless.

        It is the failed release's own prerm that would keep it on the host.
        """
        said = self._run(argv)
        if said:
            for name in names:
                for path in glob.glob(os.path.join(self.admindir, "info", glob.escape(name.split(":")[0]) + "*")):
                    if re.match(re.escape(name.split(":")[0]) + r"(:[a-z0-9-]+)?\.(prerm|postrm)\Z", os.path.basename(path)):
                        _dpkg.replace(path, HARMLESS, 0o755)
            said = self._run(argv)
        return said

    def _run(self, argv: List[str]) -> List[str]:
        code, output = self.command(self._env(self.dpkg + [FORCED] + argv, "DPKG_FRONTEND_LOCKED=1"), PATIENCE)
        if code == 0:
            return []
        lines = [line for line in output.splitlines() if line.startswith(("dpkg: ", " ")) or "error" in line]
        return ["dpkg {0}: {1}".format(argv[0], " ".join(" ".join(lines[-4:]).split()) or last_line(output) or "no end in time")]

    def mark(self, wanted: Packages, now: Packages) -> List[str]:
        """Give the packages their holds and their auto marks; what did not work."""
        said = []
        for value, verb in ((True, "auto"), (False, "manual")):
            names = _differing("auto", value, wanted, now)
            said += self._try(self._apt("apt-mark", verb) + names) if names else []
        for value, verb in ((True, "hold"), (False, "install")):
            chosen = "".join("{0} {1}\n".format(name, verb) for name in _differing("hold", value, wanted, now))
            feed = ["sh", "-c", 'printf %s "$0" | "$@"', chosen] + self.dpkg + ["--set-selections"]
            said += self._try(feed) if chosen else []
        return said

    # --- commands ---

    def _apt(self, *argv: str) -> List[str]:
        where = [] if self.root == "/" else ["-o", "Dir=" + self.root, "-o", "Dir::State::status=" + os.path.join(self.admindir, "status")]
        return [argv[0]] + where + list(argv[1:])

    def _dpkg_query(self) -> List[str]:
        return ["dpkg-query", "--admindir=" + self.admindir]

    @staticmethod
    def _env(argv: List[str], *more: str) -> List[str]:
        return ["env", "LC_ALL=C.UTF-8", "LANGUAGE=C", "DEBIAN_FRONTEND=noninteractive"] + list(more) + argv

    def _whole_output(self, argv: List[str]) -> str:
        """What a command says, however long: a host may have thousands of packages."""
        with tempfile.NamedTemporaryFile() as output:
            self._ask(["sh", "-c", 'exec "$@" >"$0"', output.name] + argv)
            return output.read().decode("utf-8", "surrogateescape")

    def _try(self, argv: List[str]) -> List[str]:
        code, output = self.command(self._env(argv), ASK)
        return [] if code == 0 else ["{0} failed: {1}".format(" ".join(argv[-4:]), last_line(output))]

    def _ask(self, argv: List[str]) -> str:
        code, output = self.command(self._env(argv), ASK)
        if code != 0:
            raise RolloutError("{0} failed: {1}".format(" ".join(argv[:2]), last_line(output)), "package")
        return str(output)


def _qualified(facts: Dict[str, Any]) -> str:
    return str(facts["name"]) if facts["arch"] == "all" else "{name}:{arch}".format(**facts)


def _file_name(facts: Dict[str, Any]) -> str:
    return "{0}_{1}_{2}.deb".format(facts["name"], facts["version"].replace(":", "%3a"), facts["arch"])


def _differing(mark: str, value: bool, wanted: Packages, now: Packages) -> List[str]:
    return sorted(key for key in wanted if key in now and wanted[key][mark] is value and now[key][mark] is not value)
