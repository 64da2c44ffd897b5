# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The provider command: programs that are wrong, fail, or do not end."""

import os
import signal

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _hooks, _snapshot
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import (
    NEW,
    upgrade,
    write,
)
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.provider_hosts import HOOKS, awaited, inside

BAD_COMMANDS = [
    ({}, "has no take; provider_commands has no restore"),
    ({"take": "lvcreate -s"}, "take is 'lvcreate -s'; write a list"),
    ({"drop": []}, r"drop is \[\]"),
    ({"undo": ["true"]}, "undo is not known"),
    ({"timeout": 0}, "timeout is 0; write seconds"),
    ({"take": ["/no/such/program"]}, "/no/such/program is not there"),
]


@pytest.mark.parametrize(("wrong", "says"), BAD_COMMANDS)
def test_commands_that_cannot_be_right_are_refused(host, wrong, says):
    good = {action: ["true"] for action in _hooks.ACTIONS}
    with pytest.raises(Refused, match=says) as caught:
        host.begin(provider="command", provider_commands=dict(good, **wrong) if wrong else wrong or None)
    assert caught.value.reason == "provider"
    assert not os.path.exists(host.state_dir)


def test_a_take_that_fails_refuses_the_host_with_its_last_words_and_is_dropped(command):
    host = command.host
    command.options["provider_commands"]["take"] = command.hook('mkdir "$copy"; echo "no extents left" >&2; exit 5')
    with pytest.raises(Refused, match=r"take command .* ended with 5: no extents left") as caught:
        host.begin(**command.options)
    assert caught.value.reason == "provider"
    assert command.left() == []
    assert not os.path.exists(os.path.join(host.state_dir, "record.json"))


def test_a_restore_that_fails_leaves_the_host_inconsistent_until_it_works(command):
    host = command.host
    before = inside(host)
    command.options["provider_commands"]["restore"] = command.hook('test -e "$store/mended" || exit 3; ' + HOOKS["restore"])
    host.begin(**command.options)
    upgrade(host.tree)
    with pytest.raises(RolloutError, match=r"restore command .* ended with 3"):
        host.restore()
    assert host.phase() == "inconsistent"
    write(os.path.join(command.store, "mended"), b"")
    assert host.restore(force=True)[1]["outcome"] == "restored"
    assert inside(host) == before


def test_a_drop_that_fails_is_reported_and_tried_again(command):
    host = command.host
    stuck = os.path.join(command.store, "stuck")

    def upgraded(number):
        host.now += 60
        host.begin(keep=1, release=dict(NEW, version=str(number), digest=str(number) * 64), **command.options)
        host.verifying()
        host.awaiting_commit()
        return host.commit()[1]

    first = upgraded(1)
    write(stuck, b"")
    second = upgraded(2)
    assert "could not be dropped" in second["warnings"][0]
    assert "the snapshot is open" in second["warnings"][0]
    assert first["last_known_good"] in second["warnings"][0]
    assert len(_snapshot.finished(host.state_dir)) == 1
    os.unlink(stuck)
    third = upgraded(3)
    assert "warnings" not in third
    assert _snapshot.names(host.state_dir) == [third["last_known_good"]]
    assert sorted(name.split(".")[0] for name in command.left()) == [third["last_known_good"]] * 2


def test_a_program_that_outlived_us_is_ended_before_the_next_one_runs(command):
    host = command.host
    pidfile = os.path.join(command.store, "pid")
    command.options["provider_commands"]["take"] = command.hook('echo $$ >"$store/pid.new"; mv "$store/pid.new" "$store/pid"; exec sleep 600')
    child = os.fork()
    if child == 0:
        try:
            host.begin(**command.options)
        finally:
            os._exit(1)
    awaited(lambda: os.path.exists(pidfile))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open(pidfile, encoding="ascii") as source:
        hook = int(source.read())
    os.kill(hook, 0)
    os.unlink(pidfile)
    assert host.restore()[1]["outcome"] == "restored"
    awaited(lambda: not os.path.exists("/proc/{0}".format(hook)) or b"sleep" not in open("/proc/{0}/cmdline".format(hook), "rb").read())
    assert command.log() == ["drop"]
    assert _snapshot.names(host.state_dir) == []


def test_a_program_without_end_is_ended(command):
    command.options["provider_commands"].update(take=command.hook("exec sleep 600"), timeout=1)
    with pytest.raises(Refused, match=r"did not end within 1 s"):
        command.host.begin(**command.options)
    assert command.left() == []
