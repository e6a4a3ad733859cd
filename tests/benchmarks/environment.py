# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""`.venv/peers`: what requirements-bench.txt names, each in a folder of its own.

Two of the peers bring a module of the name of ours, two bring a paho, and no test may come to
lean on any of them: so none is where Python looks by itself.
"""

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".venv" / "peers"
_REQUIREMENTS = ROOT / "requirements-bench.txt"
_INSTALL_S = 180
_WORDS = 100
_NETWORK = ["--retries", "1", "--timeout", "15"]  # without a network it is said soon


class Missing(Exception):
    """Something is not there, and why."""


def folder(name, may_install=True):
    """Where the project *name* is installed.

    :raises Missing: it is not, and could not or may not be
    """
    path = FOLDER / name
    if not _stamp(name).exists():
        if not may_install:
            raise Missing("%s is not installed, `python3 run.py bench` does it" % name)
        reason = _install(name)
        if reason:
            raise Missing("%s could not be installed: %s" % (name, reason))
    return path


def variables(*folders):
    """The environment of a process that finds modules in *folders*, before all others."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}


def versions():
    """``{name: version}`` of what the requirements name, but for what draws."""
    found = re.findall(r"^([\w-]+)(?:==| @ \S*/)([\w.]+?)(?:\.zip)?(?:;.*)?$", _text(), re.M)
    return {name: version[:10] for name, version in found if name != "matplotlib"}


def _text():
    return _REQUIREMENTS.read_text(encoding="utf-8")


@functools.cache  # what can't be installed is tried once
def _install(name):
    """Why it can't be installed, or None."""
    print("Installing %s into %s (the first time)\n" % (name, FOLDER), flush=True)
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    command += [*_NETWORK, "--target", str(FOLDER / name), "-c", str(_REQUIREMENTS)]
    try:
        subprocess.run(
            [*command, *_lines(name)],
            check=True,
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
        )
    except subprocess.CalledProcessError as error:
        return shortened(error.stderr) or "pip failed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    _stamp(name).touch()
    return None


def _lines(name):
    return [line for line in _text().splitlines() if re.split("[=; ]", line)[0] == name]


def _stamp(name):
    facts = repr((sys.version_info[:2], _lines(name)))
    return FOLDER / name / ("ready-" + hashlib.sha256(facts.encode()).hexdigest()[:16])


def shortened(text):
    """The beginning of the last line, where tools say what went wrong."""
    line = text.strip().rpartition("\n")[2]
    return line if len(line) <= _WORDS else line[:_WORDS] + "..."
