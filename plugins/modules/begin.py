#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: begin
short_description: Begins a host transaction, after which the host can be restored
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - Takes the host lock, sees that the host is healthy and not held by another run, takes a snapshot and writes the host record.
  - Arms the revert timer, which restores the host if no later step is heard of in time, and leaves the program that does it,
    C(onprem-rollout) in O(state_dir). It can be run by hand too, without a controller or a network; C(--help) says how.
  - A transaction that this run or a dead one left open is restored first.
  - Nothing is changed on a host that is refused; the result then has RV(refused=true) and a RV(reason).
  - Does nothing if the release is already installed and no transaction is open; the host must be healthy then as well, for it counts as proof of the release.
extends_documentation_fragment:
  - onprem.rollout.attributes
  - onprem.rollout.attributes.action
  - onprem.rollout.transaction
  - onprem.rollout.transaction.holder
  - onprem.rollout.transaction.anchor
attributes:
  check_mode:
    support: full
    details: The health checks are run, including those of type command. Nothing is written.
  diff_mode:
    support: full
options:
  rollout:
    description: The name of the rollout, for messages and the history.
    type: str
    required: true
  release:
    description:
      - The release with its C(name), C(version) and C(digest).
      - Without a digest it may be a whole O(ignore:rollout_release); the action plugin then computes the digest.
      - Its C(epoch), a whole number from 0 on, is the floor of this host once it is committed. A release of the same name with a lower one is
        refused from then on with RV(reason=below_floor), whoever asks.
      - C(vulnerable) lists ranges of versions of this name, as O(vulnerable) does.
    type: dict
    required: true
  paths:
    description:
      - Absolute paths of what the release may change. Directories are snapshotted with all below them.
      - A path that does not exist is recorded as absent and removed when the host is restored.
      - What is created inside a directory of this list is removed when the host is restored.
      - Everything comes back as it was. Content, mode, owner, modification time, extended attributes (POSIX ACLs, SELinux labels and
        capabilities among them), links, hard links inside the paths, pipes and devices. Sockets are left alone.
      - A file that is the same since the last snapshot, by device, inode, size, mtime and ctime, is not read again.
    type: list
    elements: str
    default: []
  exclude:
    description:
      - Patterns of what is below O(paths) and is neither kept nor restored nor removed, such as C(*.pid) or C(/opt/shop/cache/*).
      - C(*) stands for any text, C(?) for one character, C([abc]) for one of them. A pattern with C(/) is matched with the whole path, where
        C(*) may stand for several directories; another with the last part of the path.
    type: list
    elements: str
    default: []
  cross_mounts:
    description: Also what is mounted below O(paths). Otherwise a mounted file system is left alone, and must be mounted when the host is restored.
    type: bool
    default: false
  immutable:
    description:
      - Files with the flag immutable or append-only cannot be put back. V(refuse) names them and refuses the host.
      - V(lift) has a restore take the flags away and set them again.
    type: str
    choices: [refuse, lift]
    default: refuse
  packages:
    description:
      - Packages that the release installs, upgrades or removes, by C(name) or C(name=version); apt and dnf are supported.
      - They, and what the package manager says it would change along with them, are brought back when the host is restored - the exact
        versions, holds and automatic marks. What was absent, or came only as a dependency, is removed.
      - The files of the installed versions are secured first, from the manager's cache, by download, or on Debian rebuilt from the installed
        files, so that a restore needs no repository.
      - Their configuration files are added to O(paths).
      - C(name=version) says what is to be installed. What is pulled along is then known exactly; without a version it is what the newest one
        would pull along. A version that the repositories of the host do not have, asked once more, is refused.
    type: list
    elements: str
    default: []
  package_manager:
    description: V(apt) or V(dnf). V(auto) takes the one that is there; on a host that has both, C(/etc/os-release) tells to which family it belongs.
    type: str
    choices: [auto, apt, dnf]
    default: auto
  provider:
    description:
      - Who takes the snapshot and has its contents.
      - V(files) keeps every file that has changed since the last snapshot in O(state_dir). It works everywhere.
      - V(btrfs) takes a read-only snapshot of each subvolume that O(paths) are in, which takes no time and at first no disk, and no content is
        read. It is in C(.onprem-rollout) at the top of the subvolume, which only root can enter. Needs root. A subvolume inside of O(paths) must
        be excluded. What is added to O(paths), such as drop-ins, is kept as files where it is not on btrfs. A restore touches only what differs and
        shares blocks with the snapshot. Of files with the attribute C (no copy on write) btrfs has no checksums, so damage to them is not noticed.
      - V(command) runs O(provider_commands), for LVM, snapm, ZFS or a hypervisor.
    type: str
    choices: [files, btrfs, command]
    default: files
  provider_commands:
    description:
      - For O(provider=command), four lists of a program and its arguments, C(take), C(restore), C(drop) and C(verify), and a C(timeout) of
        each in seconds, 240 by default. Tasks of the role end after C(rollout_step_timeout), so that must be longer.
      - They run without a shell, with E(ROLLOUT_SNAPSHOT), the id of the snapshot, E(ROLLOUT_PATHS), a JSON list of O(paths), and
        E(ROLLOUT_STATE_DIR). Exit code 0 is success; the last line of output goes into the message otherwise.
      - Every one may be killed at any moment, by a power cut for instance, and is then run again. Each must cope with what it left half done, and
        C(drop) also with a snapshot that C(take) did not finish or that is gone already.
      - C(take) that fails refuses the host. C(restore) that fails leaves the host inconsistent. C(verify) that fails means a damaged snapshot.
        C(drop) that fails is a warning, and is tried again whenever snapshots are dropped.
      - They decide what they keep, so O(exclude) and O(cross_mounts) are refused with them, and a dry run cannot list paths.
    type: dict
    default: {}
  services:
    description:
      - Systemd units that are brought back to their present state when the host is restored, whether active, enabled or masked.
      - Their unit files and drop-ins in C(/etc/systemd/system) are added to O(paths).
    type: list
    elements: str
    default: []
  restart:
    description: A program and its arguments, run after the files were restored, for hosts without systemd.
    type: list
    elements: str
    default: []
  checks:
    description:
      - Health checks as for M(onprem.rollout.health). The required ones must pass now, within 5 seconds and once each.
      - They are kept in the record, so that a restore can prove itself without a controller.
    type: list
    elements: dict
    default: []
  abandoned:
    description:
      - The id of an open transaction whose run is known to be gone, as M(onprem.rollout.settle) says.
      - It is restored first, even if its lease has not ended.
    type: str
    default: ""
  retry_failed:
    description:
      - Also begin with a release that failed on this host before. Without it such a host is refused with RV(reason=failed_before).
      - A release is another one when its digest is. The host forgets the failure when the release is committed.
    type: bool
    default: false
  irreversible:
    description:
      - What the change cannot undo, such as a migration of a database. Empty if a restore undoes all of it.
      - Such a host is refused with RV(reason=irreversible) unless O(accept_irreversible=true), and is held instead of restored if the change fails.
    type: str
    default: ""
  accept_irreversible:
    description: Whether the change may begin although O(irreversible) says that it cannot be undone.
    type: bool
    default: false
  vulnerable:
    description:
      - Versions of this release that must not run, as C(vers:<scheme>/<constraints>), such as C(vers:semver/>=1.2|<1.4.1). The schemes are
        C(deb), C(rpm), C(semver) and C(pypi).
      - The host keeps them, whatever becomes of this transaction, until a release with a higher epoch is committed that declares its own.
        A release whose version is in one of them, or cannot be ordered in its scheme, is refused with RV(reason=below_floor).
    type: list
    elements: str
    default: []
  waiver:
    description:
      - A permission to begin although the release is below the floor, with C(id), C(by), C(why) and C(expires) (ISO 8601 in UTC). The strategy
        gives it, after it has verified the signature. Expired when now >= C(expires). It is used up here once the transaction begins.
    type: dict
  quarantine:
    description:
      - Seconds in which a host that had to be restored to what is known to be unsafe, by the epoch or O(vulnerable), should run something else.
        The record says so as C(quarantined), with C(since), C(until) and C(why).
    type: int
    default: 604800
  min_free:
    description: Bytes that must stay free on the file system of O(state_dir) after the snapshot.
    type: int
    default: 67108864
  lease:
    description: For how many seconds no other run may restore this host, from now and again from each later step on.
    type: int
    default: 1800
  revert_after:
    description:
      - After how many seconds without a next step the host restores itself, wherever the controller is. Each step of the transaction begins them anew.
      - While the host is parked, so healthy and only to be committed, it waits for O(lease) if that is longer.
      - With systemd and root it holds across a reboot and a power cut. Otherwise a process of its own waits, which does not.
      - V(0) means no timer. If the controller or the network is lost in mid-change, the host then stays half done until the next run.
    type: int
    default: 600
  payload_timeout:
    description:
      - For how many seconds the payload may show no next step. While it runs, the timer waits for a tenth more than this,
        if that is longer than O(revert_after).
    type: int
    default: 0
  keep:
    description: How many snapshots are kept. Last known good is always kept.
    type: int
    default: 3
  keep_days:
    description: Snapshots older than so many days are dropped, but for last known good. 0 is no limit.
    type: int
    default: 0
  keep_bytes:
    description: The oldest snapshots are dropped while all of them take more bytes than this, but for last known good. 0 is no limit.
    type: int
    default: 0
seealso:
  - module: onprem.rollout.commit
  - module: onprem.rollout.restore
"""

EXAMPLES = r"""
- name: Begin the transaction
  onprem.rollout.begin:
    rollout: shop-2.0
    release: "{{ rollout_release }}"
    paths: [/opt/shop, /etc/systemd/system/shop.service]
    services: [shop.service]
    checks:
      - type: http
        url: http://127.0.0.1:8080/health
  register: begun
"""

RETURN = r"""
outcome:
  description: V(begun), or V(skipped) if the release is installed already.
  returned: success
  type: str
  sample: begun
transaction:
  description: The id of the transaction. A payload carries it as environment variable E(ONPREM_ROLLOUT). Null in check mode or if skipped.
  returned: success
  type: str
snapshot:
  description:
    - The C(id) of the snapshot, null in check mode, and how many C(files) and C(bytes) it holds. Null if skipped.
    - How many files were C(read) because they had changed since the last snapshot, and how many bytes had to be C(stored).
  returned: success
  type: dict
  sample: {"id": "20250131T235959Z-1f2e3d4c", "files": 12, "bytes": 48213, "read": 2, "stored": 812}
phase:
  description: The phase of the transaction in the record.
  returned: success
  type: str
  sample: changing
revert:
  description:
    - The revert timer, null in check mode or if skipped. Whether it is C(armed), C(by) V(systemd) or V(process), whether it
      C(covers_reboot), after how many C(seconds) it restores the host if nobody is heard of, and a C(note) of what it does not cover.
  returned: success
  type: dict
  sample: {"armed": true, "by": "systemd", "covers_reboot": true, "seconds": 661, "note": ""}
settled:
  description: Whether a transaction that was left open was restored first.
  returned: success
  type: bool
package_manager:
  description: V(apt), V(dnf4) or V(dnf5), who has the packages of the snapshot. Null without O(packages), in check mode, or if skipped.
  returned: success
  type: str
  sample: apt
checks:
  description: The result of each health check.
  returned: success, or if the host is sick
  type: list
  elements: dict
refused:
  description: Whether the host was left as it is on purpose.
  returned: failure
  type: bool
reason:
  description: >-
    One word for machines, such as V(bad_path), V(bad_check), V(bad_package), V(no_package), V(no_package_manager), V(broken_package), V(package),
    V(bad_service), V(no_systemd), V(state_dir), V(inconsistent), V(held), V(failed_before), V(irreversible), V(below_floor), V(sick), V(no_space),
    V(unreadable), V(immutable), V(busy_file), V(provider), V(revert_timer), V(program), V(locked), V(record), V(schema) or V(restore_failed).
  returned: failure
  type: str
"""


from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.rollout.plugins.module_utils._begin import begin
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Outcome, Refused, finish
from ansible_collections.onprem.rollout.plugins.module_utils._ranges import Range
from ansible_collections.onprem.rollout.plugins.module_utils._store import local

ARGUMENTS: Dict[str, Any] = {
    "argument_spec": {
        "state_dir": {"type": "path", "default": "/var/lib/onprem-rollout"},
        "holder": {"type": "dict", "default": {}},
        "rollout": {"type": "str", "required": True},
        "release": {"type": "dict", "required": True},
        "paths": {"type": "list", "elements": "str", "default": []},
        "packages": {"type": "list", "elements": "str", "default": []},
        "package_manager": {"type": "str", "choices": ["auto", "apt", "dnf"], "default": "auto"},
        "provider": {"type": "str", "choices": ["files", "btrfs", "command"], "default": "files"},
        "provider_commands": {"type": "dict", "default": {}},
        "services": {"type": "list", "elements": "str", "default": []},
        "restart": {"type": "list", "elements": "str", "default": []},
        "checks": {"type": "list", "elements": "dict", "default": []},
        "abandoned": {"type": "str", "default": ""},
        "retry_failed": {"type": "bool", "default": False},
        "irreversible": {"type": "str", "default": ""},
        "accept_irreversible": {"type": "bool", "default": False},
        "vulnerable": {"type": "list", "elements": "str", "default": []},
        "waiver": {"type": "dict"},
        "quarantine": {"type": "int", "default": 7 * 86400},
        "anchor": {"type": "dict"},
        "min_free": {"type": "int", "default": 64 * 1024 * 1024},
        "lease": {"type": "int", "default": 1800},
        "exclude": {"type": "list", "elements": "str", "default": []},
        "cross_mounts": {"type": "bool", "default": False},
        "immutable": {"type": "str", "choices": ["refuse", "lift"], "default": "refuse"},
        "revert_after": {"type": "int", "default": 600},
        "payload_timeout": {"type": "int", "default": 0},
        "keep": {"type": "int", "default": 3},
        "keep_days": {"type": "int", "default": 0},
        "keep_bytes": {"type": "int", "default": 0},
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> Outcome:
    options = dict(module.params, state_dir=local(module.params["state_dir"]))
    lacking = [
        "{0}.{1}".format(option, key)
        for option, keys in (("release", ("name", "version", "digest")), ("holder", ("run",)))
        for key in keys
        if not isinstance(options[option].get(key), str) or not options[option][key]
    ]
    if lacking:
        raise Refused(
            "{0} is missing or no text, in release {1} and holder {2}. Nothing was touched. Call the module by a task, so that its action "
            "plugin adds what is missing, and quote the version.".format(", ".join(lacking), options["release"], options["holder"]),
            "bad_input",
        )
    negative = ["{0}: {1}".format(name, options[name]) for name in ("revert_after", "payload_timeout") if options[name] < 0]
    if negative:
        raise Refused("{0}: write seconds, from 0 on. Nothing was touched.".format(", ".join(negative)), "bad_input")
    options["release"] = identity(options["release"], options["vulnerable"])
    return begin(options, module.check_mode)


def identity(given: Dict[str, Any], vulnerable: List[str]) -> Dict[str, Any]:
    """What the record keeps of a release."""
    release = {key: given[key] for key in ("name", "version", "digest")}
    epoch, ranges = given.get("epoch") or 0, list(given.get("vulnerable") or []) + vulnerable
    if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
        raise Refused("release.epoch: {0!r}: write a whole number from 0 on. Nothing was touched.".format(epoch), "bad_input")
    for text in ranges:
        try:
            Range(str(text))
        except ValueError as error:
            raise Refused("vulnerable: {0}: {1}. Nothing was touched.".format(text, error), "bad_input") from error
    return dict(release, **{key: value for key, value in (("epoch", epoch), ("vulnerable", ranges)) if value})


def main() -> None:
    finish(AnsibleModule(**ARGUMENTS), run)


if __name__ == "__main__":
    main()
