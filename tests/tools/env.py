#!/usr/bin/env python3
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds Pythons and builds the virtual environments that the tiers run in.

``env.py python 3.11 3.12`` prints the first interpreter found of these versions, in this order.
``env.py venv --python 3.11 3.12 -- core-2.19 test`` prints the directory of a virtual environment with what
``requirements/core-2.19.txt`` and ``requirements/test.txt`` ask for, building it when it is not in the cache.

Standard library only: it runs before anything is installed. Exit code 3: no such Python here.
"""

import argparse
import fcntl
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
NO_PYTHON = 3


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "onprem-rollout" / "venvs"


def pyenv_roots():
    """Where pyenv may keep Pythons: a fresh HOME hides ~/.pyenv, so the PATH and the password entry are asked as well."""
    roots = [os.environ.get("PYENV_ROOT", "")]
    roots += [os.path.dirname(d) for d in os.environ.get("PATH", "").split(os.pathsep) if d.endswith("/shims")]
    roots += [os.path.join(home, ".pyenv") for home in (os.path.expanduser("~"), pwd.getpwuid(os.getuid()).pw_dir)]
    return [Path(root) for root in dict.fromkeys(roots) if root and os.path.isdir(os.path.join(root, "versions"))]


def candidates(version):
    """Commands that may start this version, the ones on PATH first."""
    for name in ("python" + version, "python3"):
        found = shutil.which(name)
        if found:
            yield found
    for root in pyenv_roots():

        def patch(path):
            return [int(part) for part in re.findall(r"\d+", path.name)]

        for path in sorted(root.glob("versions/{0}.*".format(version)), key=patch, reverse=True):
            yield str(path / "bin" / "python")


def resolve(command, version):
    """The interpreter behind a command (a pyenv shim is a script), or None if it is not this version or cannot make a venv."""
    code = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"
    try:
        out = subprocess.run(
            [command, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, universal_newlines=True, timeout=30
        ).stdout.split("\n")
    except (OSError, subprocess.SubprocessError):
        return None
    return out[1] if out[0] == version else None


def find_python(versions):
    for version in versions:
        for command in candidates(version):
            found = resolve(command, version)
            if found:
                return found
    return None


def requirement_files(names):
    files = [REPO / "requirements" / (name + ".txt") for name in names]
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        sys.exit("env.py: no such requirements file: " + ", ".join(missing))
    return files


def build(target, python, files, log):
    """Build the environment under its final name (environments cannot be moved); the marker is written last."""
    shutil.rmtree(str(target), ignore_errors=True)
    target.mkdir(parents=True)
    pip = [str(target / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    for path in files:
        pip += ["-r", str(path)]
    for argv in ([python, "-m", "venv", str(target)], pip):
        with open(str(log), "ab") as out:
            code = subprocess.call(argv, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        if code:
            tail = log.read_text(errors="replace").splitlines()[-25:]
            sys.exit("\n".join(tail + ["env.py: failed ({0}): {1}".format(code, " ".join(argv)), "env.py: run it by hand to see more; the log is " + str(log)]))
    (target / ".complete").write_text("\n".join(str(path) for path in files) + "\n")


def venv(versions, names):
    python = find_python(versions)
    if not python:
        print("env.py: no Python {0} here, looked on PATH and in pyenv".format(" or ".join(versions)), file=sys.stderr)
        return NO_PYTHON
    files = requirement_files(names)
    version = subprocess.check_output([python, "-VV"], universal_newlines=True)
    key = hashlib.sha256((version + python).encode())
    for path in files:
        key.update(path.read_bytes())
    target = cache_dir() / ("{0}-{1}".format("+".join(names), key.hexdigest()[:12]))
    target.parent.mkdir(parents=True, exist_ok=True)
    # Parallel runs share the cache: one builds, the others wait for it.
    with open(str(target) + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / ".complete").is_file():
            print("env.py: building {0} with {1}".format(target.name, version.split("(")[0].strip()), file=sys.stderr)
            build(target, python, files, Path(str(target) + ".log"))
    print(target)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command")
    find = commands.add_parser("python", help="print the first interpreter found of these versions")
    find.add_argument("versions", nargs="+")
    make = commands.add_parser("venv", help="print a virtual environment with these requirements, built if needed")
    make.add_argument("--python", nargs="+", required=True, metavar="VERSION")
    make.add_argument("names", nargs="+", metavar="REQUIREMENTS")
    args = parser.parse_args()
    if args.command == "venv":
        return venv(args.python, args.names)
    if args.command == "python":
        python = find_python(args.versions)
        if python:
            print(python)
            return 0
        print("env.py: no Python {0} here".format(" or ".join(args.versions)), file=sys.stderr)
        return NO_PYTHON
    parser.print_help()
    return 2


if __name__ == "__main__":
    sys.exit(main())
