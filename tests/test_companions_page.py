# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""docs/companions.md: its program runs as printed, its table is complete, its links exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tb_device_mqtt import TBDeviceMqttClient

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "companions.md").read_text(encoding="utf-8")
(PROGRAM,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_program_runs_as_printed(server, device):
    settings = {
        "THINGSBOARD_HOST": "127.0.0.1",
        "THINGSBOARD_PORT": str(server.port),
        "THINGSBOARD_TOKEN": "TOKEN_A",
        "PYTHONPATH": str(ROOT),
    }
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], env={**os.environ, **settings})
    try:
        assert device.wait(lambda device: device.telemetry, timeout=20)
    finally:
        process.terminate()
        process.wait(10)
    assert [row for _, row in device.telemetry] == [{"beats": 1}]


def test_its_companion_is_the_one_that_the_tests_prove():
    companion = (ROOT / "tests" / "companions" / "heartbeat.py").read_text(encoding="utf-8")
    printed = PROGRAM[PROGRAM.index("class Heartbeat") : PROGRAM.index("\n\n\nclient =")]
    assert companion.endswith(printed + "\n")


def test_its_table_has_the_methods_that_attach_names():
    method = r"`+(\w+\([\w, ]*\))`+"
    named = re.findall(r"\* " + method, TBDeviceMqttClient.attach.__doc__)
    assert re.findall(r"\| " + method, PAGE) == named
    assert len(named) == 6


def test_the_files_that_it_links_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
