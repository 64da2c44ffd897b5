# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small packages of Fedora and its relatives, built by rpmbuild into a directory that createrepo_c makes a repository."""

import os
import shutil
import subprocess

SPEC = """\
Name: {name}
Version: {version}
Release: 1
Summary: for a test
License: GPL-3.0-or-later
BuildArch: noarch
{head}
%description
For a test.
{scripts}
%install
cp -a {tree}/. %{{buildroot}}
%files
{files}
"""


def build(top, name, version, files, conffiles=(), scripts="", head=""):
    """An rpm below C(top)/repo; C(files) and C(conffiles) are mappings of paths to contents."""
    tree = os.path.join(top, "tree-{}-{}".format(name, version))
    shutil.rmtree(tree, ignore_errors=True)
    os.makedirs(tree)
    for path, text in dict(files, **dict(conffiles)).items():
        os.makedirs(os.path.dirname(tree + path), exist_ok=True)
        with open(tree + path, "w", encoding="utf-8") as out:
            out.write(text)
    listed = sorted(files) + ["%config(noreplace) " + path for path in sorted(conffiles)]
    spec = os.path.join(top, "{}-{}.spec".format(name, version))
    with open(spec, "w", encoding="utf-8") as out:
        out.write(SPEC.format(name=name, version=version, head=head, scripts=scripts, tree=tree, files="\n".join(listed)))
    argv = ["rpmbuild", "-bb", "--quiet", "--define", "_topdir " + top + "/build", "--define", "_rpmdir " + top + "/repo", spec]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def publish(repository, without=()):
    """Make a directory of rpms a repository, of all but those whose names begin like one of C(without)."""
    for top, _dirs, files in os.walk(repository):
        for name in files:
            if any(name.startswith(prefix) for prefix in without):
                os.unlink(os.path.join(top, name))
    subprocess.run(["createrepo_c", "-q", repository], check=True)
