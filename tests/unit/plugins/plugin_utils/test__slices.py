# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._slices import slice_problems

JOB = {"awx_job_id": 7, "awx_job_template_name": "upgrade", "tower_job_template_name": "upgrade"}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        JOB,
        {**JOB, "awx_workflow_job_name": "releases", "awx_job_launch_type": "workflow"},
        {**JOB, "awx_workflow_job_name": "upgrade", "job_slice_count": 1},
        {**JOB, "awx_workflow_job_name": "upgrade", "awx_job_launch_type": "manual"},
        {"job_slice_count": 1},
        {"awx_job_slice_count": "1"},
        {"awx_workflow_job_name": ""},
    ],
)
def test_a_whole_job_is_let_in(variables):
    assert slice_problems(variables) == []


@pytest.mark.parametrize(
    "variables, where",
    [
        ({**JOB, "awx_workflow_job_name": "upgrade"}, "awx_workflow_job_name"),
        ({**JOB, "awx_workflow_job_name": "upgrade", "awx_job_launch_type": "workflow"}, "awx_workflow_job_name"),
        ({**JOB, "tower_workflow_job_name": "upgrade"}, "tower_workflow_job_name"),
        ({"awx_job_slice_count": 3}, "awx_job_slice_count"),
        ({"tower_job_slice_count": "2"}, "tower_job_slice_count"),
        ({"job_slice_count": 2, "job_slice_number": 1}, "job_slice_count"),
    ],
)
def test_a_slice_is_refused_by_name(variables, where):
    (problem,) = slice_problems(variables)
    assert problem.where == where
    assert "set Job slicing of the template to 1" in problem.remedy
