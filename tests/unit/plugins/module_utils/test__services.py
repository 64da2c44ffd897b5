# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _services
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError


class Systemctl:
    """A systemd of two-line units that does what it is told and remembers it."""

    def __init__(self, units, broken=(), ids=()):
        self.units = units
        self.ids = dict(ids)
        self.broken = broken
        self.calls = []

    def __call__(self, argv, _timeout):
        words = [word for word in argv[1:] if not word.startswith("-")]
        verb, units = words[0], words[1:]
        if verb == "show":
            blocks = ["Id={}\nActiveState={}\nUnitFileState={}\n".format(self.ids.get(unit, unit), *self.units.get(unit, ("inactive", ""))) for unit in units]
            return 0, "\n".join(blocks)
        self.calls.append(" ".join(words))
        if verb == "unmask":
            self.units[units[0]] = (self.units[units[0]][0], "disabled")
        if verb in self.broken:
            return 1, "Job for it failed.\nSee the journal.\n"
        return (1, "Unit is not loaded.") if verb == "reset-failed" and units[0] not in self.units else (0, "")


@pytest.fixture(autouse=True)
def units(tmp_path, monkeypatch):
    """The directory of units; what is written there in tests is not the machine's."""
    monkeypatch.setattr(_services, "UNITS", str(tmp_path))
    return tmp_path


def test_looking_says_what_runs_and_what_is_enabled():
    states = {"a.service": ("active", "enabled"), "b.service": ("activating", "static"), "c.service": ("failed", "disabled")}
    assert _services.look(["a.service", "b.service", "c.service", "new.service"], Systemctl(states)) == {
        "a.service": {"active": True, "file": "enabled", "id": "a.service", "links": {}},
        "b.service": {"active": True, "file": "static", "id": "b.service", "links": {}},
        "c.service": {"active": False, "file": "disabled", "id": "c.service", "links": {}},
        "new.service": {"active": False, "file": "", "id": "new.service", "links": {}},
    }
    assert _services.look([], None) == {}


def test_looking_fails_loudly():
    with pytest.raises(RolloutError, match=r"systemctl show a.service failed: no bus"):
        _services.look(["a.service"], lambda _argv, _timeout: (1, "no bus\n"))


CASES = [
    (("active", "enabled"), ("active", "enabled"), ["restart a"]),
    (("active", "enabled"), ("failed", "enabled"), ["restart a"]),
    (("active", "enabled"), ("inactive", "disabled"), ["enable a", "restart a"]),
    (("inactive", "disabled"), ("active", "enabled"), ["disable a", "stop a"]),
    (("inactive", ""), ("active", "enabled"), ["stop a"]),
    (("inactive", "static"), ("failed", "static"), []),
    (("inactive", "masked"), ("active", "enabled"), ["mask a", "stop a"]),
    (("active", "enabled"), ("inactive", "masked"), ["unmask a", "enable a", "restart a"]),
    (("active", "static"), ("inactive", "masked"), ["unmask a", "restart a"]),
]


@pytest.mark.parametrize(("before", "now", "calls"), CASES)
def test_units_become_what_they_were(before, now, calls):
    wanted = _services.look(["a"], Systemctl({"a": before}))
    systemctl = Systemctl({"a": now})
    assert _services.put_back(wanted, systemctl) == []
    switched = [call for call in calls if "able" in call or "mask" in call]
    assert systemctl.calls == ["daemon-reload"] + switched + ["reset-failed a"] + calls[len(switched) :]


def test_units_that_the_change_brought_are_ended_while_their_files_say_how():
    wanted = {"old": {"active": True, "file": "enabled"}, "off": {"active": False, "file": "disabled"}, "new": {"active": False, "file": ""}}
    systemctl = Systemctl(dict.fromkeys(wanted, ("active", "enabled")))
    _services.retire(wanted, systemctl)
    assert systemctl.calls == ["disable new", "stop new"]
    gone = Systemctl({})
    _services.retire(wanted, gone)
    assert gone.calls == []


def test_what_did_not_work_is_told_and_the_rest_is_done():
    wanted = {"a": {"active": True, "file": "enabled"}, "b": {"active": False, "file": ""}}
    systemctl = Systemctl({"a": ("failed", "enabled"), "b": ("active", "enabled")}, broken=["restart"])
    assert _services.put_back(wanted, systemctl) == ["systemctl restart a failed: See the journal."]
    assert systemctl.calls[-1] == "stop b"


def test_no_units_need_no_systemd(monkeypatch):
    monkeypatch.setattr(_services, "present", lambda: False)
    _services.require([])
    with pytest.raises(Refused, match=r"services is a.service, but this host does not run systemd"):
        _services.require(["a.service"])
    assert _services.put_back({}, None) == []


RERUNS = [
    ([], []),
    (["true"], []),
    (["sh", "-c", "echo starting; echo port taken; exit 3"], ["ended with 3: port taken"]),
    (["/nowhere/at/all"], ["cannot be started: No such file or directory"]),
]


@pytest.mark.parametrize(("argv", "says"), RERUNS)
def test_the_operators_restart_command(argv, says):
    problems = _services.rerun(argv)
    assert len(problems) == len(says)
    assert all(says[0] in problem and argv[0] in problem for problem in problems)


def test_a_restart_that_does_not_end_is_told():
    assert "did not end in 300 s" in _services.rerun(["slow"], lambda _argv, _timeout: (None, ""))[0]


TWICE = [
    (["shop", "shop.service"], "shop and shop.service are both shop.service"),
    (["a.timer", "b.socket", "a.timer"], "a.timer and a.timer are both a.timer"),
]


@pytest.mark.parametrize(("units", "says"), TWICE)
def test_two_names_of_one_unit_are_refused(monkeypatch, units, says):
    monkeypatch.setattr(_services, "present", lambda: True)
    with pytest.raises(Refused, match=r"services names one unit 2 times: " + says) as caught:
        _services.require(units)
    assert caught.value.reason == "bad_service"
    _services.require(["shop", "shop.socket", "shop@1", "shop@2", "a.b"])


def test_an_alias_and_its_unit_are_refused():
    with pytest.raises(Refused, match=r"shop.service and web.service are both shop.service"):
        _services.look(["web.service", "shop.service"], Systemctl({}, ids={"web.service": "shop.service"}))


def test_the_files_of_a_unit_are_its_own_and_those_of_its_template(units):
    names = ("db@.service", "db@.service.d", "db@1.service", "db@1.service.d", "shop.service", "shop.service.d", "x.timer", "x.timer.d")
    assert _services.files(["shop", "db@1.service", "x.timer"]) == [str(units / name) for name in names]
    assert _services.files([]) == []


def link(units, name, target):
    (units / name).parent.mkdir(exist_ok=True)
    (units / name).symlink_to(target)


def test_a_unit_is_wanted_again_by_what_wanted_it(units):
    shop, other = "/usr/lib/systemd/system/shop.service", "/usr/lib/systemd/system/other.service"
    kept = {"multi-user.target.wants/shop.service": shop, "cash.service": "shop.service", "a.target.requires/shop.service": shop}
    for name, target in dict(kept, **{"multi-user.target.wants/other.service": other, "b.service": "/dev/null"}).items():
        link(units, name, target)
    wanted = _services.look(["shop"], Systemctl({"shop": ("active", "enabled")}, ids={"shop": "shop.service"}))
    assert wanted["shop"]["links"] == {str(units / name): target for name, target in kept.items()}
    for name in kept:
        (units / name).unlink()
    link(units, "graphical.target.wants/shop.service", shop)
    link(units, "cash.service", "/opt/till.service")
    systemctl = Systemctl({"shop": ("active", "enabled")})
    assert _services.put_back(wanted, systemctl) == []
    assert _services.links("shop.service") == wanted["shop"]["links"]
    assert sorted(path.name for path in units.iterdir()) == ["a.target.requires", "b.service", "cash.service", "multi-user.target.wants"]
    assert systemctl.calls == ["daemon-reload", "daemon-reload", "reset-failed shop", "restart shop"]
    assert _services.put_back(wanted, Systemctl({"shop": ("active", "enabled")})) == []
    assert systemctl.calls.count("daemon-reload") == 2


def test_a_unit_that_was_wanted_by_nothing_is_so_again(units):
    wanted = _services.look(["shop"], Systemctl({"shop": ("inactive", "static")}))
    link(units, "shop.service.wants/shop", "/opt/shop")
    assert _services.put_back(wanted, Systemctl({"shop": ("inactive", "static")})) == []
    assert list(units.iterdir()) == []
