# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small Debian packages, built by dpkg-deb, and a real dpkg database in a directory of its own to install them into."""

import hashlib
import os
import shutil
import subprocess

from ansible_collections.onprem.rollout.plugins.module_utils import _apt, _packages, _process

ENV = dict(os.environ, LC_ALL="C.UTF-8", DEBIAN_FRONTEND="noninteractive")


def build(directory, name, version, files=(), conffiles=(), scripts=(), arch="all", **fields):
    """A .deb; C(files), C(conffiles) and C(scripts) are mappings of paths or names to contents."""
    tree = os.path.join(str(directory), "tree-{}-{}".format(name, version.replace(":", ".")))
    control = "".join("{}: {}\n".format(key.replace("_", "-"), value) for key, value in sorted(fields.items()))
    head = "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: nobody <nobody@localhost>\nDescription: for a test\n of two lines\n"
    wanted = {"DEBIAN/control": head.format(name, version, arch) + control}
    if conffiles:
        wanted["DEBIAN/conffiles"] = "".join(path + "\n" for path in sorted(conffiles))
    wanted.update({"DEBIAN/" + script: text for script, text in dict(scripts).items()})
    wanted.update({path.lstrip("/"): text for source in (files, conffiles) for path, text in dict(source).items()})
    for path, text in wanted.items():
        place = os.path.join(tree, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w", encoding="utf-8") as out:
            out.write(text)
        os.chmod(place, 0o755 if path[7:] in dict(scripts) else 0o644)
    target = os.path.join(str(directory), "{}_{}_{}.deb".format(name, version.replace(":", "%3a"), arch))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", tree, target], check=True, stdout=subprocess.DEVNULL)
    return target


def repository(directory, debs):
    """Make the directory a repository with exactly these packages."""
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    with open(os.path.join(directory, "Packages"), "wb") as out:
        for deb in debs:
            shutil.copy(deb, directory)
            control = subprocess.run(["dpkg-deb", "-f", deb], check=True, stdout=subprocess.PIPE).stdout
            with open(deb, "rb") as source:
                content = source.read()
            about = "Filename: ./{}\nSize: {}\nSHA256: {}\n\n".format(os.path.basename(deb), len(content), hashlib.sha256(content).hexdigest())
            out.write(control + about.encode())


class Root:
    """A system of packages and nothing else. Scripts run outside of it, with its place in DPKG_ROOT."""

    def __init__(self, path):
        self.path = str(path)
        self.state_dir = os.path.join(self.path, "state")
        for directory in (
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "var/cache/apt/archives/partial",
            "var/lib/apt/lists/partial",
            "etc/apt",
            "var/log/apt",
            "state",
        ):
            os.makedirs(os.path.join(self.path, directory))
        for file in ("status", "available"):
            open(os.path.join(self.path, "var/lib/dpkg", file), "w").close()
        self.commands = []
        self.manager = _apt.Apt(self.command, self.path, ["--force-script-chrootless"])

    def command(self, argv, timeout):
        self.commands.append(argv)
        return _process.run(argv, timeout)

    def dpkg(self, *argv, check=True):
        argv = ["dpkg", "--root=" + self.path, "--force-script-chrootless,confold,depends"] + list(argv)
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENV, stdin=subprocess.DEVNULL)
        if check and done.returncode:
            raise AssertionError(done.stdout.decode())
        return done.stdout.decode()

    def installed(self):
        """What an independent reader says: every package, its version and its state."""
        form = "${Package} ${Version} ${db:Status-Abbrev}\n"
        argv = ["dpkg-query", "--admindir=" + self.path + "/var/lib/dpkg", "-W", "-f", form]
        return sorted(line.strip() for line in subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout.decode().splitlines())

    def marks(self, what):
        argv = ["apt-mark", "-o", "Dir=" + self.path, "-o", "Dir::State::status=" + self.path + "/var/lib/dpkg/status", what]
        return subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENV).stdout.decode().split()

    def hold(self, name, verb="hold"):
        argv = ["dpkg", "--root=" + self.path, "--set-selections"]
        subprocess.run(argv, input="{} {}\n".format(name, verb).encode(), check=True, stderr=subprocess.DEVNULL)

    def mark(self, verb, *names):
        argv = ["apt-mark", "-o", "Dir=" + self.path, "-o", "Dir::State::status=" + self.path + "/var/lib/dpkg/status", verb]
        subprocess.run(argv + list(names), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENV)

    def read(self, path):
        with open(os.path.join(self.path, path.lstrip("/")), encoding="utf-8") as source:
            return source.read()

    def write(self, path, text):
        with open(os.path.join(self.path, path.lstrip("/")), "w", encoding="utf-8") as out:
            out.write(text)

    def verify(self, name):
        """What dpkg -V says: every file that is not as the package brought it."""
        return self.dpkg("-V", name, check=False)

    def cache(self, *debs):
        for deb in debs:
            with open(deb, "rb") as source, open(os.path.join(self.path, "var/cache/apt/archives", os.path.basename(deb)), "wb") as out:
                out.write(source.read())

    def publish(self, *debs):
        """A local repository with exactly these packages, of which apt is not told yet."""
        repository(self.path + ".repo", debs)
        self.write("etc/apt/sources.list", "deb [trusted=yes] file:{}.repo ./\n".format(self.path))

    def update(self):
        options = ["-o", "Dir=" + self.path, "-o", "Dir::State::status=" + self.path + "/var/lib/dpkg/status", "-o", "APT::Sandbox::User=root"]
        subprocess.run(["apt-get", "-q"] + options + ["update"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def secure(self, *names, snapshot="s1"):
        looked = _packages.look(list(names), self.manager)
        _packages.secure(self.state_dir, snapshot, looked)
        return looked

    def put_back(self, snapshot="s1"):
        return _packages.put_back(self.state_dir, snapshot, self.manager)
