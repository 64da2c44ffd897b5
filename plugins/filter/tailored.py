# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filter plugin tailored: what one host takes of a release. See tailored.yml."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.rollout.plugins.plugin_utils import _tailored


def tailored(release: Any, groups: Iterable[str] = (), os: str = "", arch: str = "", facts: Mapping[str, Any] | None = None) -> Any:
    """A release that is not tailored, or no mapping at all, stays as it is."""
    if not isinstance(release, Mapping) or not release.get("tailored"):
        return release
    try:
        return _tailored.resolved(release, _tailored.traits(groups, os, arch, facts))
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"tailored": tailored}
