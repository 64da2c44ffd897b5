# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._keywords import INSTEAD, keyword_problems, option_problems


@pytest.mark.parametrize(
    "keyword, value, refused",
    [
        ("serial", [], False),
        ("serial", ["50%"], True),
        ("max_fail_percentage", None, False),
        ("max_fail_percentage", 0, True),
        ("any_errors_fatal", False, False),
        ("any_errors_fatal", True, True),
        ("ignore_errors", None, False),
        ("ignore_errors", True, True),
    ],
)
def test_a_keyword_of_the_play_is_refused_when_it_is_given(keyword, value, refused):
    found = keyword_problems("Shop", {keyword: value}, any_errors_fatal=False)
    assert [str(problem) for problem in found] == ([f"play 'Shop', {keyword}: {value!r}: {INSTEAD[keyword]}"] if refused else [])


def test_one_that_the_configuration_gives_is_named_once_and_where_it_stands():
    found = keyword_problems("Shop", {"any_errors_fatal": True}, any_errors_fatal=True)
    assert [problem.where for problem in found] == ["ansible.cfg, any_errors_fatal"]


@pytest.mark.parametrize(
    "option, value, refused",
    [
        ("tags", ("all",), False),
        ("tags", ["all"], False),
        ("tags", (), False),
        ("tags", ("web",), True),
        ("skip_tags", (), False),
        ("skip_tags", ["slow"], True),
        ("start_at_task", None, False),
        ("start_at_task", "Commit the host", True),
    ],
)
def test_an_option_that_would_leave_tasks_out_is_refused(option, value, refused):
    assert [problem.value for problem in option_problems({option: value})] == ([value] if refused else [])


def test_options_that_are_not_there_are_no_trouble():
    assert option_problems({}) == []
