# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What the README shows, runs as printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

# The README leaves the port out, as its reader does; nobody may listen on the default one in tests.
ON_OUR_PORT = """
import tb_device_mqtt
made = tb_device_mqtt.TBDeviceMqttClient.__init__
def on_our_port(self, host, port=None, *arguments, **options):
    made(self, host, %d if port is None else port, *arguments, **options)
tb_device_mqtt.TBDeviceMqttClient.__init__ = on_our_port
"""


def test_there_is_code_to_run():
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_code_runs_as_printed(server, device, block):
    settings = {"THINGSBOARD_HOST": "127.0.0.1", "THINGSBOARD_TOKEN": "TOKEN_A"}
    process = subprocess.Popen(
        [sys.executable, "-c", ON_OUR_PORT % server.port + block],
        env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
    )
    try:
        assert device.wait(lambda device: device.telemetry, timeout=20)
    finally:
        process.terminate()
        process.wait(10)


def test_the_commands_of_run_py_that_it_names_exist():
    known = (ROOT / "run.py").read_text(encoding="utf-8")
    named = set(re.findall(r"python3 run\.py (\w+)", README))
    assert {"demo", "test", "bench"} <= named
    assert [name for name in named if "run.py %s" % name not in known] == []


def test_the_files_that_it_links_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
