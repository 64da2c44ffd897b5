# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs one of our modules over a pipelined connection without the wrapper that ansible-core puts around every module.

A module run costs about 160 ms of the host's processor, of which importing C(ansible.module_utils.basic) from its zip is more
than half. Our modules need nothing of it but C(params), C(check_mode), C(exit_json) and C(fail_json). So the sources of our
C(module_utils) and of the module go to Python's standard input, and their arguments are validated here, by the same
C(ArgumentSpecValidator) and the same specification.

Wherever that could differ from a module run, the module is run: without pipelining, with an interpreter that is not known
yet, on another shell than sh, delegated, asynchronous, or with a path that only the host can expand.
"""

from __future__ import annotations

import base64
import functools
import importlib
import json
import re
import shlex
import zlib
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

PLUGINS = Path(__file__).resolve().parents[1]
PACKAGE = "ansible_collections.onprem.rollout.plugins"
DOCS = re.compile(r'^(DOCUMENTATION|EXAMPLES|RETURN) = r""".*?^"""', re.DOTALL | re.MULTILINE)

# What the host runs. It imports from a dictionary of sources, so nothing is written there. C(from . import _name) only reads a
# source when the name is first used, which spares a host the half that it does not need. Not safe in threads: _checks resolves before it has any.
PROGRAM = """
import base64, importlib.util, json, sys, zlib
class Sources:
    def __init__(self, sources): self.sources = sources
    def create_module(self, spec): return None
    def find_spec(self, name, path=None, target=None):
        if name in self.sources:
            return importlib.util.spec_from_loader(name, Lazy(self), origin="<" + name + ">", is_package=not self.sources[name])
    def get_source(self, name): return self.sources.get(name, "")
    def exec_module(self, module):
        source = self.sources.get(module.__name__, "")
        exec(compile(source, "<" + module.__name__ + ">", "exec", dont_inherit=True), module.__dict__)
class Lazy(importlib.util.LazyLoader):
    def get_source(self, name): return self.loader.get_source(name)
sys.meta_path.insert(0, Sources(json.loads(zlib.decompress(base64.b64decode("{sources}")).decode())))
from {package}.module_utils._stdin import start
from {package}.modules.{name} import run
params = json.loads(base64.b64decode("{params}").decode())
"""
START = "start(run, params, {check_mode})\n"
# A file that comes along has no name, so it is gone with the process whatever happens.
ATTACH = """
from {package}.module_utils._process import unnamed_file
attached = unnamed_file()
attached.write(base64.b64decode("{attachment}"))
attached.flush()
params["{option}"] = "/proc/self/fd/" + str(attached.fileno())
"""


@functools.cache
def prepare() -> None:
    """Import and pack the modules of the built-in path here, where every worker is forked from, and not in each of them.

    Called while the first hosts are being asked, when there is nothing else to do.
    """
    for name in ("begin", "archive", "health", "commit"):
        importlib.import_module(f"{PACKAGE}.modules.{name}")
        sources(name)


@functools.cache
def sources(name: str) -> str:
    """The module and all of module_utils, packed."""
    found = {f"{PACKAGE}.module_utils.{path.stem}": path.read_text("utf-8") for path in (PLUGINS / "module_utils").glob("_*.py")}
    found[f"{PACKAGE}.modules.{name}"] = DOCS.sub("", (PLUGINS / "modules" / f"{name}.py").read_text("utf-8"))
    found["ansible.module_utils.basic"] = "AnsibleModule = None"
    found = {key: text for key, text in found.items() if not key.endswith("__init__")}
    found.update({key[:end]: "" for key in list(found) for end, letter in enumerate(key) if letter == "."})
    return base64.b64encode(zlib.compress(json.dumps(found).encode(), 6)).decode()


def possible(action: ActionBase, name: str, arguments: dict[str, Any], task_vars: dict[str, Any]) -> bool:
    """Whether a light run gives what a module run would."""
    spec = importlib.import_module(f"{PACKAGE}.modules.{name}").ARGUMENTS["argument_spec"]
    return known_interpreter(action, task_vars) is not None and can_be_light(action) and not needs_the_host(arguments, spec)


def run(action: ActionBase, name: str, arguments: dict[str, Any], task_vars: dict[str, Any], attachment: tuple[str, bytes] | None = None) -> dict[str, Any]:
    """The result of the module C(onprem.rollout.<name>) on the host of this action.

    attachment: an option and the content of the file it shall name on the host; only where a light run is possible.
    """
    interpreter = known_interpreter(action, task_vars)
    module = importlib.import_module(f"{PACKAGE}.modules.{name}")
    if interpreter is None or not possible(action, name, arguments, task_vars):
        result: dict[str, Any] = action._execute_module(module_name=f"onprem.rollout.{name}", module_args=arguments, task_vars=task_vars)
        return result
    options = {key: value for key, value in module.ARGUMENTS.items() if key not in ("argument_spec", "supports_check_mode")}
    validated = ArgumentSpecValidator(module.ARGUMENTS["argument_spec"], **options).validate(arguments)
    if validated.error_messages:
        return {"failed": True, "changed": False, "msg": "; ".join(validated.error_messages)}
    params = base64.b64encode(json.dumps(validated.validated_parameters).encode()).decode()
    program = PROGRAM.replace("{package}", PACKAGE).replace("{name}", name)
    program = program.replace("{params}", params).replace("{sources}", sources(name))
    if attachment:
        content = base64.b64encode(attachment[1]).decode()
        program += ATTACH.replace("{package}", PACKAGE).replace("{option}", attachment[0]).replace("{attachment}", content)
    program += START.replace("{check_mode}", str(bool(action._task.check_mode)))
    environment = action._compute_environment_string()
    command = f"{environment} {shlex.quote(interpreter)} -I -B -S -".strip()
    return read(action._low_level_execute_command(command, in_data=program.encode()))


def known_interpreter(action: ActionBase, task_vars: dict[str, Any]) -> str | None:
    """The host's Python by an absolute path, if it is set or was discovered by an earlier task."""
    given = task_vars.get("ansible_python_interpreter")
    value = str(action._templar.template(given)) if given else "auto"
    if value.startswith("auto"):
        value = str((task_vars.get("ansible_facts") or {}).get("discovered_interpreter_python") or "")
    return value if value.startswith("/") and " " not in value else None


def can_be_light(action: ActionBase) -> bool:
    task = action._task
    sh = getattr(action._connection._shell, "SHELL_FAMILY", "") == "sh"
    return bool(sh and not task.delegate_to and not task.async_val and action._is_pipelining_enabled("new"))


def needs_the_host(arguments: dict[str, Any], spec: dict[str, Any]) -> bool:
    """A ~ or $ in a path stands for something of the host's."""
    return any(option.get("type") == "path" and re.search(r"[~$]", str(arguments.get(key) or "")) for key, option in spec.items())


def read(answer: dict[str, Any]) -> dict[str, Any]:
    """The module's result: the last line of what it printed, if it came so far."""
    line = str(answer.get("stdout", "")).strip().rpartition("\n")[2]
    try:
        result = json.loads(line)
    except ValueError:
        result = None
    if isinstance(result, dict):
        return result
    told = str(answer.get("stderr") or answer.get("stdout") or "").strip().rpartition("\n")[2]
    return {
        "failed": True,
        "msg": f"The module ended without a result (rc {answer.get('rc')}): {told}",
        "module_stdout": answer.get("stdout", ""),
        "module_stderr": answer.get("stderr", ""),
        "rc": answer.get("rc"),
    }
