# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Releases of bundles, a computer that has unpacked them, and the drive of a board.

circup calls a bundle by its repository. The files of a release are named after it, in lower case
and with ``-`` for ``_``: ``REPOSITORY-py-TAG.zip`` and ``REPOSITORY-10.x-mpy-TAG.zip``. circup
unpacks them below its data folder; with ``--offline`` it uses what is there.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

LIBRARY = "thingsboard/CircuitPython_thingsboard-client-sdk"
ADAFRUIT = "adafruit/Adafruit_CircuitPython_Bundle"
COMMUNITY = "adafruit/CircuitPython_Community_Bundle"
BUILT_IN = (ADAFRUIT, COMMUNITY)  # circup knows these two by itself
DATE_TAG = "20260101"  # they are released daily
ADAFRUIT_MODULES = {  # name on PyPI: module
    "adafruit-circuitpython-minimqtt": "adafruit_minimqtt",
    "adafruit-circuitpython-connectionmanager": "adafruit_connection_manager",
    "adafruit-circuitpython-ticks": "adafruit_ticks",
}
COMMUNITY_VERSION = "0.0.1"  # older than ours, whatever ours is
COMMUNITY_EXAMPLE = "thingsboard_client_sdk/send_telemetry"
PLATFORM = "10.x-mpy"
CIRCUP_LIMIT_S = 50


# --- releases ------------------------------------------------------------------------------------


def bundle_name(repo):
    return repo.split("/")[1].lower().replace("_", "-")


def release_name(repo, platform, tag):
    return "%s-%s-%s" % (bundle_name(repo), platform, tag)


class Releases:
    """Of several repositories, in a folder: ``OWNER/REPOSITORY/TAG/FILE``."""

    def __init__(self, folder):
        self.folder = folder

    def latest_tag(self, repo):
        folder = self.folder / repo
        return max(path.name for path in folder.iterdir()) if folder.is_dir() else None

    def files(self, repo):
        return sorted((self.folder / repo / self.latest_tag(repo)).glob("*.zip"))

    def add_files(self, repo, tag, platform, files):
        """*files*: ``{path: content}``."""
        top = release_name(repo, platform, tag)
        folder = self.folder / repo / tag
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder / (top + ".zip"), "w") as archive:
            for name, content in files.items():
                archive.writestr("%s/%s" % (top, name), content)


def add_library(releases, root, tag, mpy_cross):
    """What the checkout *root* makes for a release."""
    command = [sys.executable, str(root / "run.py"), "bundle", "--mpy-cross", str(mpy_cross)]
    command += ["--out", str(releases.folder / LIBRARY / tag), "--tag", tag]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def copy_checkout(root, folder, old, new):
    """What a release is made of, with *old* replaced in the library."""
    for name in ("tools", "examples"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("run.py", "pyproject.toml", "requirements.txt"):
        shutil.copy(root / name, folder)
    source = (root / "tb_device_mqtt.py").read_text(encoding="utf-8")
    assert source.count(old) == 1, old
    (folder / "tb_device_mqtt.py").write_text(source.replace(old, new), encoding="utf-8")
    return folder


def add_adafruit_bundle(releases, mpy_cross, scratch):
    """The three libraries that ours needs, as they are installed in this Python."""
    sources, others = {}, {"examples/": b""}
    for project, module in ADAFRUIT_MODULES.items():
        for file in importlib.metadata.files(project):
            if file.parts[0] in (module, module + ".py") and file.suffix == ".py":
                sources["lib/" + file.as_posix()] = file.locate().read_bytes()
        needed = "\n".join(importlib.metadata.requires(project) or [])
        others["requirements/%s/requirements.txt" % module] = needed.encode()
    compiled = {}
    for name, source in sources.items():
        if not source:  # empty files stay as they are in the true bundle
            compiled[name] = source
            continue
        py, mpy = scratch / "module.py", scratch / "module.mpy"
        py.write_bytes(source)
        subprocess.run([str(mpy_cross), "-o", str(mpy), str(py)], check=True)
        compiled[name[:-3] + ".mpy"] = mpy.read_bytes()
    releases.add_files(ADAFRUIT, DATE_TAG, "py", dict(sources, **others))
    releases.add_files(ADAFRUIT, DATE_TAG, PLATFORM, dict(compiled, **others))


def add_community_bundle(releases):
    """An older module with the name of ours: that is how the true one began."""
    source = '__version__ = "%s"\nimport adafruit_minimqtt\n' % COMMUNITY_VERSION
    files = {
        "lib/tb_device_mqtt.py": source,
        "requirements/tb_device_mqtt/requirements.txt": "adafruit-circuitpython-minimqtt\n",
        "examples/%s.py" % COMMUNITY_EXAMPLE: "import tb_device_mqtt\n",
    }
    releases.add_files(COMMUNITY, DATE_TAG, "py", files)


# --- a computer ----------------------------------------------------------------------------------


class Computer:
    """A computer with circup; all that circup keeps there is below *home*."""

    def __init__(self, home, program):
        self.home, self.program = home, program
        # appdirs decides so.
        library = "Library/Application Support" if sys.platform == "darwin" else "data"
        self.data = home / library / "circup"
        self.folder = home / "empty"  # circup looks at what lies in the current folder
        self.folder.mkdir(parents=True)
        self.variables = {  # no proxy and no setting of the one who runs the tests
            "HOME": str(home),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONIOENCODING": "utf-8",
        }

    def circup(self, *arguments, folder=None, **variables):
        """``(exit status, all that it said)``"""
        return self._run([self.program, *arguments], folder, variables)

    def wwshell(self, *arguments):
        """The other program of circup, for the files of a board with Web Workflow."""
        return self._run([str(Path(self.program).with_name("wwshell")), *arguments], None, {})

    def _run(self, command, folder, variables):
        result = subprocess.run(
            command,
            cwd=str(folder or self.folder),
            env=dict(self.variables, **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=CIRCUP_LIMIT_S,
            check=False,
        )
        return result.returncode, result.stdout

    def unpack(self, releases, *repos):
        """As circup does when it downloads."""
        tags = {repo: releases.latest_tag(repo) for repo in repos}
        for repo, tag in tags.items():
            for path in releases.files(repo):
                bundle = path.stem[: -len("-" + tag)].replace(".x-", "")  # ...-py, ...-10mpy
                with zipfile.ZipFile(path) as archive:
                    archive.extractall(self.data / repo.split("/")[0] / bundle)
        text = json.dumps({repo: [tag] for repo, tag in tags.items()})
        (self.data / "circup.json").write_text(text)

    def know(self, *repos):
        """As after ``circup bundle-add``."""
        listed = {repo: repo for repo in repos}
        (self.data / "bundle_config_local.json").write_text(json.dumps(listed))


# --- a board -------------------------------------------------------------------------------------


class Drive:
    """The CIRCUITPY drive of a board that runs CircuitPython *version*."""

    def __init__(self, folder, version):
        self.folder, self.lib = folder, folder / "lib"
        self.lib.mkdir(parents=True)
        boot_out = (
            "Adafruit CircuitPython %s on 2026-01-01; Raspberry Pi Pico W with rp2040\r\n"
            "Board ID:raspberry_pi_pico_w\r\n" % version
        )
        (folder / "boot_out.txt").write_bytes(boot_out.encode())

    def modules(self):
        """What is in lib: "tb_device_mqtt.mpy", a package by its name alone."""
        return sorted(path.name for path in self.lib.iterdir())

    def copy(self, release):
        """Copy all that is in lib of a *release*."""
        with zipfile.ZipFile(release) as archive:
            for entry in archive.namelist():
                _, _, path = entry.partition("/lib/")
                if path:
                    target = self.lib / path
                    target.parent.mkdir(exist_ok=True)
                    target.write_bytes(archive.read(entry))

    def change(self, name, old, new):
        path = self.lib / name
        content = path.read_bytes()
        assert content.count(old) == 1, (name, old)
        path.write_bytes(content.replace(old, new))
