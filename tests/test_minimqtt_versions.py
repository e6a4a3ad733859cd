# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The oldest MiniMQTT that is supported and the newest, each in an environment of its own.

Any other can be tried too: ``MINIMQTT_VERSIONS="7.11.6 8.0.0" python3 run.py test -k minimqtt``.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import do_without
from minimqtt_contract import CLAUSES

NEWEST = "newest"
VERSIONS = os.environ.get("MINIMQTT_VERSIONS", "7.8.0 " + NEWEST).split()

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "tests" / "minimqtt_contract.py"
INSTALL_LIMIT_S = 240  # pip, on a slow line
CLAUSE_LIMIT_S = 50

pytestmark = pytest.mark.timeout(INSTALL_LIMIT_S + CLAUSE_LIMIT_S + 10)


def run_python(arguments, limit_s, **options):
    command = [sys.executable, *[str(argument) for argument in arguments]]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=limit_s, check=False, **options
    )


def install(folder, version):
    """What a user of that MiniMQTT has: it, and what requirements.txt names."""
    arguments = ["-m", "pip", "install", "--disable-pip-version-check", "--target", folder]
    arguments += ["-r", ROOT / "requirements.txt"]
    if version != NEWEST:
        arguments.append("adafruit-circuitpython-minimqtt==" + version)
    try:
        result = run_python(arguments, INSTALL_LIMIT_S)
    except subprocess.TimeoutExpired:
        return "not within %d s" % INSTALL_LIMIT_S
    return (result.stderr.strip() or "no reason given") if result.returncode else None


@pytest.fixture(scope="module", params=VERSIONS)
def environment(request, tmp_path_factory):
    """(MiniMQTT's version, variables of an environment that has it)."""
    folder = tmp_path_factory.mktemp("minimqtt")
    complaint = install(folder, request.param)
    if complaint is not None:
        complaint = complaint.splitlines()[-1]
        do_without("pip could not get MiniMQTT %s: %s" % (request.param, complaint))
    paths = [str(path) for path in (folder, ROOT, ROOT / "examples")]
    return request.param, dict(os.environ, PYTHONPATH=os.pathsep.join(paths))


@pytest.mark.parametrize("clause", CLAUSES)
def test_minimqtt_keeps_the_contract(clause, environment, certificates):
    version, variables = environment
    # -S leaves out the packages of the Python that runs the tests, its own MiniMQTT among them.
    arguments = ["-S", "-B", SCRIPT, clause, certificates.ca, *certificates.server]
    result = run_python(arguments, CLAUSE_LIMIT_S, env=variables)
    output = result.stdout + result.stderr
    assert result.returncode == 0, "MiniMQTT %s:\n%s" % (version, output)
    assert "kept by MiniMQTT" in result.stdout
    assert version in (NEWEST, result.stdout.split()[-1]), "another MiniMQTT was found: " + output
