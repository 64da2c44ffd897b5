# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packages of Fedora, RHEL and their relatives: dnf is asked what a change would pull along, rpm puts back without a repository.

A package is known by name.arch. An rpm cannot be built again from its installed files, so one that no repository and no
cache has any more is refused. The versions that dnf's versionlock holds are lines of a file, which is snapshotted as one.
"""

import glob
import os
import re
import shutil
import tempfile
from typing import Any, Dict, List, Optional, Set

from ._errors import Refused, RolloutError
from ._process import last_line

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\Z")
ASK = 120.0
PATIENCE = 900.0
QUERY = "%{NAME}\x1f%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\x1f%{ARCH}\x1f[%{REQUIRENAME},]\x1f[%{PROVIDENAME},]\x1f%{SIZE}\x1e"
MISSING = re.compile(r"(?:Unable to find a match|No match for argument): (.*)$", re.M)
VERSIONLOCKS = ["/etc/dnf/plugins/versionlock.list", "/etc/dnf/versionlock.toml"]  # of dnf 4 and 5
AUTOMATIC = re.compile(r" (weak[- ])?dependency\Z", re.I)
FORCED = ["--oldpackage", "--replacepkgs", "--replacefiles", "--nodeps", "--nosignature", "--ignorearch"]
LEAVING = ["--nopreun", "--nopostun"]
Packages = Dict[str, Dict[str, Any]]


class Dnf:
    """The packages below C(root)."""

    manager = "dnf"
    remedy = "dnf check; dnf remove --duplicates"
    beside = (".rpmnew", ".rpmsave", ".rpmorig")

    def __init__(self, command: Any, root: str = "/", options: Any = ()) -> None:
        self.command = command
        self.root = root
        self.rpm = ["rpm"] + ([] if root == "/" else ["--root=" + root])
        self.dnf = ["dnf", "-y"] + ([] if root == "/" else ["--installroot=" + root]) + list(options)

    @property
    def tool(self) -> str:
        """dnf4 or dnf5."""
        return "dnf5" if os.path.basename(os.path.realpath(shutil.which("dnf") or "")) == "dnf5" else "dnf4"

    @staticmethod
    def named(text: str) -> bool:
        """Whether it can be the name of a package."""
        return bool(NAME.match(text))

    # --- looking ---

    def look(self) -> Packages:
        """Every installed package: version, arch, state, auto, what it needs and provides, size in bytes."""
        automatic = self._automatic()
        packages = {}  # type: Packages
        for row in self._whole_output(self.rpm + ["-qa", "--qf", QUERY]).split("\x1e"):
            if "\x1f" not in row:
                continue
            name, version, arch, needs, provides, size = row.split("\x1f")
            key = name + "." + arch
            if name == "gpg-pubkey":
                continue
            packages[key] = {
                "name": name,
                "version": version if key not in packages else "{0}, {1}".format(packages[key]["version"], version),
                "arch": arch,
                "state": "installed" if key not in packages else "installed more than once",
                "hold": False,
                "auto": key in automatic,
                "needs": [need for need in needs.split(",") if need],
                "provides": [provided for provided in provides.split(",") if provided],
                "size": int(size) if size.isdigit() else 0,
            }
        return packages

    def _automatic(self) -> Set[str]:
        """The packages that dnf installed only because another one needs them."""
        query = self.dnf + ["-q", "-C", "repoquery", "--installed", "--qf", "%{name}.%{arch} %{reason}\n"]
        return {line.split()[0] for line in self._whole_output(query).splitlines() if AUTOMATIC.search(line.strip())}

    def keys(self, names: List[str], packages: Packages) -> List[str]:
        """How the packages of these names are known; a name alone for one that is absent."""
        found = []
        for name in names:
            same = [key for key in packages if name in (key, packages[key]["name"])]
            found += same or [name]
        return sorted(set(found))

    def pulled_along(self, names: List[str], versions: Dict[str, str], _packages: Packages) -> Set[str]:
        """The packages that dnf would change to install these; empty if dnf cannot tell. Refused if it lacks a wanted version."""
        wanted = ["{0}-{1}".format(name, versions[name]) if name in versions else name for name in names]
        found = set()  # type: Set[str]
        for verb in ("install", "upgrade"):
            ask = self.dnf + ["--assumeno", "--allowerasing", verb] + wanted
            code, output = self.command(self._env(ask), ASK)
            if MISSING.search(output) and versions:  # perhaps it was published since the metadata was fetched
                code, output = self.command(self._env(ask + ["--refresh"]), PATIENCE)
            missing = MISSING.findall(output) if versions and verb == "install" else []
            if code != 0 and missing:
                locked = "by exclude filtering" in output
                raise Refused(
                    "dnf cannot install {0}: {1}. Nothing was touched. {2}".format(
                        " ".join(wanted),
                        ("a versionlock or an exclude keeps {0} away" if locked else "no repository of this host has {0}").format("; ".join(missing)),
                        "Take it away, for instance with dnf versionlock delete, or correct packages."
                        if locked
                        else "Publish it in a repository of this host, or correct packages.",
                    ),
                    "no_package",
                )
            found |= _listed(output)
        return found

    def config(self, packages: Packages) -> Dict[str, Dict[str, str]]:
        """The configuration files of these packages, on the disk or not."""
        found = {}
        for key in packages:
            told = self._ask(self.rpm + ["-q", "--configfiles", key])
            found[key] = {line: "" for line in told.splitlines() if line.startswith("/")}
        return found

    @staticmethod
    def marks_paths() -> List[str]:
        """Files that hold marks."""
        return list(VERSIONLOCKS)

    # --- securing ---

    def find(self, packages: Packages, directory: str) -> Dict[str, str]:
        """For each package the path of a good file of exactly its version. RolloutError(package) for one that cannot be had."""
        found = {}
        caches = [os.path.join(self.root, "var/cache/dnf/*/packages"), os.path.join(self.root, "var/cache/libdnf5/*/packages")]
        for key in sorted(packages):
            path = self._best(packages[key], caches)
            if path is None:
                nevra = "{name}-{version}.{arch}".format(**packages[key])
                fetch = self.dnf + ["-q", "reinstall", "--downloadonly", "--downloaddir=" + directory, nevra]
                self.command(self._env(fetch), PATIENCE)
                path = self._best(packages[key], [directory])
            if path is None:
                raise Refused(
                    "Package {0} {1} is in no repository of this host and not in dnf's cache, and an rpm cannot be built again from its installed files. "
                    "Nothing was touched. Bring it back to a repository, or leave {0} out of packages.".format(key, packages[key]["version"]),
                    "package",
                )
            found[key] = path
        return found

    def _best(self, facts: Dict[str, Any], directories: List[str]) -> Optional[str]:
        bare = facts["version"].partition(":")[2] or facts["version"]
        for directory in directories:
            for path in sorted(glob.glob(os.path.join(directory, glob.escape("{0}-{1}.{2}.rpm".format(facts["name"], bare, facts["arch"]))))):
                if self._good(path, facts):
                    return path
        return None

    def _good(self, path: str, facts: Dict[str, Any]) -> bool:
        """Whether this is the package's file, whole: rpm compares the digests that it brings along."""
        form = "%{NAME}\x1f%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\x1f%{ARCH}"
        code, output = self.command(self._env(self.rpm + ["-qp", "--nosignature", "--qf", form, path]), ASK)
        if code != 0 or output.split("\x1f") != [facts["name"], facts["version"], facts["arch"]]:
            return False
        return bool(self.command(self._env(self.rpm + ["-K", "--nosignature", path]), PATIENCE)[0] == 0)

    # --- putting back ---

    def put_back(self, files: Dict[str, str], gone: Packages, _config: Dict[str, Dict[str, str]]) -> List[str]:
        """Install these files over whatever is there, without what is C(gone); what rpm said when it failed."""
        said = []  # type: List[str]
        if gone:
            said += self._change(["-e", "--nodeps", "--allmatches"] + sorted(gone))
        if files:
            said += self._change(["-U"] + FORCED + sorted(files.values()))
        return said

    def _change(self, argv: List[str]) -> List[str]:
        """Run rpm; if it fails, once more without the scripts of what is leaving: the failed release's own would keep it here."""
        said = self._try(self.rpm + argv)
        return self._try(self.rpm + argv[:1] + LEAVING + argv[1:]) if said else []

    def mark(self, wanted: Packages, now: Packages) -> List[str]:
        """Give the packages their auto marks; what did not work."""
        said = []
        for value, old, new in ((True, "remove", "dependency"), (False, "install", "user")):
            names = sorted(wanted[key]["name"] for key in wanted if key in now and wanted[key]["auto"] is value and now[key]["auto"] is not value)
            if names and self._try(self.dnf + ["-q", "mark", old] + names):
                said += self._try(self.dnf + ["-q", "mark", new] + names)  # dnf 5 has other words
        return said

    # --- commands ---

    @staticmethod
    def _env(argv: List[str]) -> List[str]:
        return ["env", "LC_ALL=C.UTF-8", "LANGUAGE=C"] + argv

    def _try(self, argv: List[str]) -> List[str]:
        code, output = self.command(self._env(argv), PATIENCE)
        return [] if code == 0 else ["{0} failed: {1}".format(" ".join(argv[:2] + argv[-1:]), last_line(output) or "no end in time")]

    def _ask(self, argv: List[str]) -> str:
        code, output = self.command(self._env(argv), ASK)
        if code != 0:
            raise RolloutError("{0} failed: {1}".format(" ".join(argv[:2]), last_line(output)), "package")
        return str(output)

    def _whole_output(self, argv: List[str]) -> str:
        """What a command says, however long: a host may have thousands of packages."""
        with tempfile.NamedTemporaryFile() as output:
            self._ask(["sh", "-c", 'exec "$@" >"$0"', output.name] + argv)
            return output.read().decode("utf-8", "surrogateescape")


def _listed(output: str) -> Set[str]:
    """The packages of dnf's table, whose long names stand on a line of their own."""
    table = output.partition("\n====")[2].partition("Transaction Summary")[0]
    rows = re.findall(r"^ (\S+)\s+([a-z]\S*)\s+\S*[0-9]\S*(?=\s)", table, re.M)
    return {"{0}.{1}".format(*row) for row in rows} | set(re.findall(r"^ +replacing +(\S+) ", table, re.M))
