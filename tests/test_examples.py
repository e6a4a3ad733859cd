# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Every example as it stands, on a made-up board (tests/boards), against the stand-in."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import wait_until

ROOT = Path(__file__).parent.parent
BOARDS = ROOT / "tests" / "boards"
EXAMPLES = ROOT / "examples"
MAX_LINES = 40
OPENING_LINES = 6
PICO_W = "raspberry_pi_pico_w"
ESP32_S3 = "adafruit_feather_esp32s3_4mbflash_2mbpsram"
BOARD_OF = {  # the others run on a Pico W
    "airlift_esp32spi": "pyportal",
    "ethernet_wiznet5k": "wiznet_w5500_evb_pico",
    "neopixel_animation": ESP32_S3,
    "on_a_computer": "computer",
}


class Board:
    """One example, running; `lines` is what it has printed so far."""

    def __init__(self, name, server, log, **environment):
        self._log = log
        paths = (BOARDS, ROOT / "tests", ROOT)
        self._process = subprocess.Popen(
            [sys.executable, str(BOARDS / "run_example.py"), str(EXAMPLES / (name + ".py"))],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, paths)),
                "PYTHONUNBUFFERED": "1",
                "THINGSBOARD_HOST": "127.0.0.1",
                "THINGSBOARD_PORT": str(server.port),
                "THINGSBOARD_TOKEN": "TOKEN_A",
                "BOARD": BOARD_OF.get(name, PICO_W),
                "BOARD_SPEED": "10",
                **environment,
            },
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
        )

    @property
    def lines(self):
        return self._log.read_text(encoding="utf-8")

    def has_ended(self):
        return self._process.poll() is not None

    def end(self):
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture
def start(server, device, tmp_path):
    """``start(name of an example, VARIABLE=value, ...)``"""
    boards = []

    def start(name, on=server, **environment):
        boards.append(Board(name, on, tmp_path / (name + ".log"), **environment))
        return boards[-1]

    yield start
    for board in boards:
        board.end()


def wait_for(device, board, condition):
    if not device.wait(lambda device: condition(device) or board.has_ended(), timeout=20):
        pytest.fail("the example did not do it; it printed:\n" + board.lines)
    assert condition(device), board.lines


def has_telemetry(key, count=1):
    return lambda device: sum(key in values for _, values in device.telemetry) >= count


@pytest.mark.parametrize("kind", [PICO_W, ESP32_S3])
def test_tb_device_mqtt_simpletest(start, device, kind):
    board = start("tb_device_mqtt_simpletest", BOARD=kind)
    wait_for(device, board, has_telemetry("memory"))
    wait_until(lambda: "the server has both" in board.lines)
    assert device.client_attributes == {"program": "simpletest"}


@pytest.mark.parametrize(
    "name, key",
    (
        ("send_telemetry", "uptime"),
        ("neopixel_animation", "frames_per_second"),
        ("ethernet_wiznet5k", "memory"),
        ("on_a_computer", "free_megabytes"),
    ),
)
def test_an_example_reports_again_and_again(start, device, name, key):
    board = start(name)
    wait_for(device, board, has_telemetry(key, count=3))
    first, _, third = [ts for ts, values in device.telemetry if key in values][:3]
    assert third - first > 1500, "twenty seconds of a board are two of ours"


def test_watchdog_is_fed(start, device):
    board = start("watchdog", BOARD_SPEED="5")
    wait_for(device, board, has_telemetry("memory", count=3))  # long after a reset
    assert not board.has_ended()


def test_neopixel_animation_runs_at_full_speed(start, device):
    board = start("neopixel_animation")
    wait_until(lambda: "filled 10000 times" in board.lines, timeout=20)
    assert device.wait(lambda device: device.online)


def test_asyncio_loop_blinks_meanwhile(start, device):
    board = start("asyncio_loop")
    wait_for(device, board, has_telemetry("lamp", count=2))
    wait_until(lambda: "LED is True" in board.lines)


def test_a_watchdog_that_is_not_fed_resets():
    """Else the watchdog example would prove nothing."""
    code = "from microcontroller import watchdog; watchdog.timeout = 0.1; watchdog.mode = 'reset'"
    command = [sys.executable, "-c", code + "; import time; time.sleep(5)"]
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(BOARDS)}, capture_output=True, check=False
    )
    assert ended.returncode == 1
    assert b"reset by the watchdog" in ended.stdout


def test_ethernet_keeps_its_address(start, device):
    board = start("ethernet_wiznet5k")
    wait_for(device, board, has_telemetry("memory"))
    assert "keeps its address" in board.lines


def test_airlift_joins_the_network_and_reports(start, device):
    board = start("airlift_esp32spi", CIRCUITPY_WIFI_SSID="attic")
    wait_for(device, board, has_telemetry("memory", count=2))
    assert "joins attic" in board.lines


def test_attribute_requests_count_the_starts(start, device):
    device.push_attributes({"place": "roof"})
    for count in (1, 2):
        board = start("attribute_requests")
        wait_for(device, board, lambda d, count=count: d.client_attributes == {"starts": count})
        wait_until(lambda board=board: "place: roof" in board.lines)
        board.end()


def test_attribute_updates_change_the_interval(start, device):
    board = start("attribute_updates")
    wait_for(device, board, has_telemetry("memory"))
    device.push_attributes({"interval": 2})
    wait_until(lambda: "{'interval': 2}" in board.lines)
    wait_for(device, board, has_telemetry("memory", count=10))
    device.push_attributes({"interval": "fast"})
    wait_until(lambda: "fast" in board.lines)
    count = len(device.telemetry)
    wait_for(device, board, has_telemetry("memory", count=count + 1))


def test_rpc_handler_replies_at_once_and_later(start, device):
    start("rpc_handler")
    assert device.rpc("getMemory") == {"memory": 123456}
    assert device.rpc("measure") == {"measured": 42}
    assert device.rpc("dance", 3) == {"error": "dance(3)?"}


def test_rpc_lamp_switches(start, device):
    board = start("rpc_lamp")
    assert device.rpc("setLamp", True) is True
    assert "LED is True" in board.lines
    assert device.wait(lambda d: d.client_attributes == {"lamp": True})
    assert "true or false" in device.rpc("setLamp", "off")["error"]
    assert device.rpc("getLamp") is True


def test_device_claiming_sends_the_key_of_the_settings(start, device):
    board = start("device_claiming", THINGSBOARD_CLAIM_KEY="open sesame")
    wait_for(device, board, lambda device: device.claim is not None)
    assert device.claim == {"secretKey": "open sesame", "durationMs": 600000}
    assert "sesame" not in board.lines


def test_connect_without_waiting_survives_a_server_that_comes_late(start, server, device):
    server.stop_listening()
    board = start("connect_without_waiting")
    wait_until(lambda: "no server is listening" in board.lines, timeout=20)
    server.listen_again()
    wait_for(device, board, has_telemetry("memory", count=2))
    wait_until(lambda: "LED is True" in board.lines)


def test_readings_while_offline_tell_their_time_once_the_clock_is_set(start, server, device):
    server.stop_listening()
    board = start("readings_while_offline", BOARD_CLOCK="unset")
    wait_until(lambda: "no time yet" in board.lines, timeout=20)
    end = time.monotonic() + 3  # half a minute of the board
    wait_until(lambda: time.monotonic() > end)
    server.listen_again()
    wait_for(device, board, has_telemetry("memory", count=3))
    first, second, third = [ts for ts, _ in device.telemetry[:3]]
    assert 9000 < second - first < 12000
    assert 9000 < third - second < 12000
    assert abs(first - time.time() * 1000) < 600000, "not in the year 2000"


@pytest.fixture
def wake_up(start, server, tmp_path):
    """``wake_up()`` runs the example until it sleeps again; the packets that it has sent."""

    def wake_up():
        seen = len(server.packets)
        memory = str(tmp_path / "sleep_memory")
        board = start("deep_sleep", BOARD_SLEEP_MEMORY=memory, BOARD_TICKS_SPEED="10")
        wait_until(board.has_ended, timeout=20)
        assert board.lines == "sleeps for 600 s\n"
        wait_until(lambda: not server.connections)
        return [name for _, way, name in server.packets[seen:] if way == "in"]

    return wake_up


def given_up(device):
    return [values["given_up"] for _, values in device.telemetry]


def test_deep_sleep_begins_when_the_reading_has_arrived(wake_up, device):
    for _ in range(2):
        assert wake_up() == ["CONNECT", "PUBLISH", "DISCONNECT"]
    assert given_up(device) == [0, 0]
    assert {topic for topic, *_ in device.messages} == {"v2/t"}


def test_deep_sleep_comes_without_a_server_too_and_that_is_told_later(wake_up, server, device):
    server.stop_listening()
    assert wake_up() == wake_up() == []
    server.listen_again()
    wake_up()
    wake_up()
    assert given_up(device) == [2, 0]


def test_deep_sleep_waits_for_an_answer_but_not_for_ever(wake_up, server, device):
    server.faults.mute_puback = True
    assert "PUBLISH" in wake_up()
    server.faults.mute_puback = False
    wake_up()
    assert given_up(device)[-1] == 1


def test_tls_ca_file_trusts_that_authority(start, tls_server, certificates, tmp_path):
    (tmp_path / "ca.pem").write_bytes(Path(certificates.ca).read_bytes())
    device = tls_server.add_device("Device A", token="TOKEN_A")
    board = start("tls_ca_file", on=tls_server, BOARD_DRIVE=str(tmp_path))
    wait_for(device, board, has_telemetry("memory"))
    board.end()


def examples():
    return [path for path in sorted(EXAMPLES.glob("*.py")) if path.stem != "demo"]


def test_every_example_is_run():
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [path.stem for path in examples() if '"%s"' % path.stem not in tests] == []


def test_every_example_opens_with_the_same_words_and_fits_on_a_screen():
    assert len(examples()) > 10
    openings = {tuple(path.read_text().splitlines()[:OPENING_LINES]) for path in examples()}
    assert len(openings) == 1
    for path in examples():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES, path.name
