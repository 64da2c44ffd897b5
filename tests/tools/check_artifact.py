#!/usr/bin/env python3
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the collection, installs the artifact somewhere else, and looks at it as its users will.

It must hold what users need and no litter of ours, and `ansible-doc` must show every plugin and role from it.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
FULL_NAME = "onprem.rollout"
# Everything that may stand at the top of the artifact; a new name is a decision.
TOP = {
    "CHANGELOG.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "changelogs",
    "docs",
    "execution-environment.yml",
    "inventories",
    "meta",
    "playbooks",
    "plugins",
    "requirements",
    "roles",
}
REQUIRED = {"README.md", "LICENSE", "CHANGELOG.md", "meta/runtime.yml", "meta/execution-environment.yml", "requirements/runtime.txt"}
LITTER = ("__pycache__", ".pyc", ".mypy_cache", ".pytest_cache", ".hypothesis", ".build", ".git", ".tar.gz")
# Directories of plugins by the type that ansible-doc knows them by; documentation of an action stands in its module.
DOCUMENTED = {"modules": "module", "strategy": "strategy", "callback": "callback", "filter": "filter", "lookup": "lookup", "test": "test"}


def run(*argv, **env):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, env=dict(os.environ, **env))
    if done.returncode:
        sys.exit("check_artifact: {0} failed ({1}):\n{2}{3}".format(" ".join(argv), done.returncode, done.stdout, done.stderr))
    return done.stdout


def tracked(tree):
    """Copy what git would hand out, so that what lies about in a clone cannot decide what is built."""
    names = run("git", "-C", str(REPO), "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in names:
        source = REPO / name
        if name and source.is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(source), str(tree / name))


def judge_files(names):
    problems = ["unexpected at the top: " + top for top in sorted({name.split("/")[0] for name in names} - TOP)]
    problems += ["missing: " + name for name in sorted(REQUIRED - names)]
    problems += ["litter: " + name for name in sorted(names) if any(part in name for part in LITTER)]
    return problems


def judge_docs(installed, collections):
    problems = []
    env = {"ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_NOCOLOR": "1"}
    expected = [
        (kind, path.stem)
        for directory, kind in DOCUMENTED.items()
        for path in sorted((installed / "plugins" / directory).glob("*"))
        if path.suffix in (".py", ".yml") and not path.name.startswith("_")
    ]
    expected += [("role", path.parent.parent.name) for path in sorted(installed.glob("roles/*/meta/argument_specs.yml"))]
    for kind in sorted({kind for kind, stem in expected}):
        names = ["{0}.{1}".format(FULL_NAME, stem) for other, stem in expected if other == kind]
        shown = json.loads(run("ansible-doc", "--json", "--type", kind, *names, **env))
        problems += ["ansible-doc shows nothing for {0} {1}".format(kind, name) for name in names if not shown.get(name)]
    if not any(kind == "module" for kind, stem in expected):
        problems.append("no module in the artifact")
    print("ansible-doc shows {0} plugins and roles".format(len(expected)))
    return problems


def main():
    with tempfile.TemporaryDirectory(prefix="onprem-rollout-artifact.") as name:
        work = Path(name)
        tracked(work / "tree")
        run("ansible-galaxy", "collection", "build", "--output-path", str(work), str(work / "tree"))
        artifact = next(work.glob("*.tar.gz"))
        with tarfile.open(str(artifact)) as tar:
            names = {member.name for member in tar.getmembers() if member.isfile()}
        print("{0}: {1} files, {2} KiB".format(artifact.name, len(names), artifact.stat().st_size // 1024))
        problems = judge_files(names)
        # Alone on the path: a collection found elsewhere would count as installed.
        run(
            "ansible-galaxy",
            "collection",
            "install",
            "--offline",
            "--collections-path",
            str(work / "installed"),
            str(artifact),
            ANSIBLE_COLLECTIONS_PATH=str(work / "installed"),
        )
        problems += judge_docs(work / "installed" / "ansible_collections" / "onprem" / "rollout", work / "installed")
    for problem in problems:
        print("check_artifact: " + problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
