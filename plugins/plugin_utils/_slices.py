# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A job that AWX cut into slices runs as several ansible-playbooks, each with some of the hosts: no plan would hold for all of them. Pure.

AWX (read in its source: C(Job.awx_meta_vars), C(JobTemplate.create_unified_job), C(WorkflowJobNode.get_job_kwargs), C(RunJob.build_env)) tells a slice
nothing of its number, neither in its variables nor in its environment. But it makes a workflow job out of the job template, with the template's name, and
tells each slice both names, and that a workflow launched it. Who passes the numbers on by himself is believed, whatever they say. A slice that is
launched again by itself has the same part of the inventory and no workflow (C(Job.copy_unified_job)): nobody can tell it from a whole job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem

PREFIXES = ("awx_", "tower_", "")
REMEDY = "AWX would run each slice as a rollout of its own, past the rings, waves and budgets of the others: set Job slicing of the template to 1"


def slice_problems(variables: Mapping[str, Any]) -> list[Problem]:
    """Why this run is only a slice of a job; nothing if it is a whole one."""
    for prefix in PREFIXES:
        name = f"{prefix}job_slice_count"
        if str(variables.get(name, "")).strip():
            return [] if str(variables[name]).strip() in ("0", "1") else [Problem(name, variables[name], REMEDY)]
    for prefix in PREFIXES[:2]:
        workflow, template, launch = (str(variables.get(f"{prefix}{name}") or "") for name in ("workflow_job_name", "job_template_name", "job_launch_type"))
        if workflow and workflow == template and launch in ("", "workflow"):
            remedy = (
                f"is the name of the job template too, as it is for a sliced job. {REMEDY}; or, if that is a workflow, give it another name, or the job "
                "template the variable job_slice_count: 1"
            )
            return [Problem(f"{prefix}workflow_job_name", workflow, remedy)]
    return []
