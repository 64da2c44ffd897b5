# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Leaves the console program on the host: one file that restores it with the host's Python alone.

It is a zip of the very sources that this module runs from, wherever those are, and needs neither a controller nor ansible-core.
"""

import io
import re
import sys
import zipfile
from typing import Dict, List

from ._errors import RolloutError
from ._store import write_file
from ._timer import program

PACKAGE = "onprem_rollout"
ENTRY = "_console"
IMPORT = re.compile(r"^\s*from \.(\w*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)
MAIN = """import os
import sys

state_dir = os.path.dirname(os.path.realpath(sys.argv[0]))
if sys.argv[1:2] == ["revert"]:
    from {0}._revert import main
else:
    from {0}._console import main

sys.exit(main(state_dir, sys.argv[1:]))
"""


def leave(state_dir: str) -> None:
    """Write the program, unless it is there. Called before a change: the program of an open transaction is the one that began it."""
    write_file(program(state_dir), build(), 0o700)


def build() -> bytes:
    """The file: the same bytes for the same sources and the same Python."""
    content = {"__main__": MAIN.format(PACKAGE), PACKAGE + "/__init__": ""}
    content.update(("{0}/{1}".format(PACKAGE, name), text) for name, text in sources(ENTRY).items())
    packed = io.BytesIO()
    packed.write("#!{0} -IBS\n".format(sys.executable).encode("utf-8", "surrogateescape"))
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_STORED) as archive:
        for name, text in sorted(content.items()):
            archive.writestr(zipfile.ZipInfo(name + ".py", (1980, 1, 1, 0, 0, 0)), text.encode("utf-8"))
    return packed.getvalue()


def sources(entry: str) -> Dict[str, str]:
    """The source of a module beside this one, and of all that it imports from here, by name."""
    found = {}  # type: Dict[str, str]
    wanted = [entry]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = _source(name)
            wanted += imports(found[name])
    return found


def imports(source: str) -> List[str]:
    """What a source imports from beside itself."""
    names = []  # type: List[str]
    for module, listed in IMPORT.findall(source):
        names += [module] if module else re.findall(r"\b_\w+", listed)
    return names


def _source(name: str) -> str:
    package = __package__ or __name__.rpartition(".")[0]
    # importlib.util.find_spec() would read and compile a module that was imported and never used; see plugin_utils/_light.py.
    finders = [finder.find_spec for finder in sys.meta_path if hasattr(finder, "find_spec")]
    specs = (find("{0}.{1}".format(package, name), sys.modules[package].__path__, None) for find in finders)
    spec = next(filter(None, specs), None)
    text = spec.loader.get_source(spec.name) if spec and hasattr(spec.loader, "get_source") else None  # type: ignore[union-attr]
    if text is None:
        raise RolloutError("The source of {0} is not here, so no program could be left that restores this host. Nothing was changed.".format(name), "program")
    return str(text)
