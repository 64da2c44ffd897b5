# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._commands import Commands


def commands(*words: str) -> Commands:
    return Commands(["/usr/bin/ansible-playbook", *words], ["site.yml", "onprem.rollout.upgrade"])


def test_a_playbook_of_the_users_own_is_replaced():
    given = commands("site.yml", "-i", "hosts.yml", "-u", "deploy", "--check", "-e", "@release.yml")
    assert given.same() == "ansible-playbook site.yml -i hosts.yml -u deploy --check -e @release.yml"
    assert given.other("status") == "ansible-playbook onprem.rollout.status -i hosts.yml -u deploy -e @release.yml"
    assert given.other("recover", "--limit", "a b").endswith("--limit 'a b'")


SHOWN = [
    (["-e", "db_password=hunter2"], "-e db_password=HIDDEN", ""),
    (["-e", "rollout_keep=2 api_token=hunter2"], "-e 'rollout_keep=2 api_token=HIDDEN'", " -e rollout_keep=2"),
    (["-edb_password=hunter2"], "-edb_password=HIDDEN", ""),
    (["--extra-vars=secret=hunter2"], "--extra-vars=secret=HIDDEN", ""),
    (["-e", '{"db": {"password": "hunter2"}, "x": 1}'], """-e '{"db": {"password": "HIDDEN"}, "x": 1}'""", """ -e '{"x": 1}'"""),
    (["-e", "{db: hunter2}"], "-e HIDDEN", ""),
    (["-e", "depot=https://me:hunter2@depot"], "-e depot=HIDDEN", ""),
    (["-e", "rollout_ledger=postgresql://u@db/shop?sslmode=require&password=hunter2"], "-e rollout_ledger=HIDDEN", ""),
    (["-e", "rollout_keep=2"], "-e rollout_keep=2", " -e rollout_keep=2"),
    (["-e", '{"passwords": ["hunter2"]}'], """-e '{"passwords": "HIDDEN"}'""", ""),
    (["-e", '{"db_password": {"x": "hunter2"}}'], """-e '{"db_password": "HIDDEN"}'""", ""),
    (["-e", '{"secret": 1.5, "depots": ["https://me:hunter2@depot"]}'], """-e '{"secret": "HIDDEN", "depots": ["HIDDEN"]}'""", ""),
    (["-e", """db='{"password": "hunter2"}'"""], "-e db=HIDDEN", ""),
    (["-e", "[hunter2]"], "-e HIDDEN", ""),
    (["-vedb_password=hunter2"], "-vedb_password=HIDDEN", " -v"),
    (["-bDe", "db_password=hunter2 x=1"], "-bDe 'db_password=HIDDEN x=1'", " -b -e x=1"),
    (["-e=db_password=hunter2"], "-e=db_password=HIDDEN", ""),
    (["--extra-var", "db_password=hunter2"], "--extra-var db_password=HIDDEN", ""),
    (["--ex=db_password=hunter2"], "--ex=db_password=HIDDEN", ""),
    (["-CD", "-vCv", "-Di", "hosts", "--ch", "--dif"], "-CD -vCv -Di hosts --ch --dif", " -vv -i hosts"),
    (["-e", "@secret.yml"], "-e @secret.yml", " -e @secret.yml"),
]


@pytest.mark.parametrize("words, shown, kept", SHOWN, ids=[case[1] for case in SHOWN])
def test_secrets_are_not_shown(words, shown, kept):
    given = commands("onprem.rollout.upgrade", *words)
    assert given.same() == f"ansible-playbook onprem.rollout.upgrade {shown}"
    assert given.other("status") == f"ansible-playbook onprem.rollout.status{kept}"
