#!/usr/bin/env python3
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports every file that may travel to a host, with the Python it is run by; tests/tools/unit runs it with 3.6."""

import importlib
import sys
import traceback
from pathlib import Path

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
PACKAGE = "ansible_collections.onprem.rollout.plugins."


def main():
    names = sorted(kind + "." + path.stem for kind in ("module_utils", "modules") for path in (PLUGINS / kind).glob("*.py") if path.stem != "__init__")
    failed = []
    for name in names:
        try:
            importlib.import_module(PACKAGE + name)
        except Exception:
            traceback.print_exc()
            failed.append(name)
    print("{0} of {1} on-host files import on Python {2}.{3}".format(len(names) - len(failed), len(names), *sys.version_info[:2]))
    return 1 if failed or not names else 0


if __name__ == "__main__":
    sys.exit(main())
