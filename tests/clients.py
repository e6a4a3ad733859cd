# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What the tests of the client share: clients, callbacks that note, a clock that jumps."""

import contextlib
import json
import time

import tb_device_mqtt
from helpers import run_until
from tb_device_mqtt import TBDeviceMqttClient

TELEMETRY = "v1/devices/me/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"
ATTRIBUTES_REQUEST = "v1/devices/me/attributes/request/"
RPC_REQUEST = "v1/devices/me/rpc/request/"
RPC_RESPONSE = "v1/devices/me/rpc/response/"
CLAIM = "v1/devices/me/claim"

BACKOFF_MS = 20


def new_client(server, **options):
    """A client of Device A that is back soon after each loss."""
    options = {"port": server.port, "access_token": "TOKEN_A", **options}
    client = TBDeviceMqttClient("127.0.0.1", **options)
    client._link.backoff_ms = BACKOFF_MS
    return client


@contextlib.contextmanager
def offline_client(server, **options):
    """A client that was not connected yet, and is disconnected afterwards."""
    client = new_client(server, **options)
    yield client
    client.disconnect()


@contextlib.contextmanager
def online_client(server, **options):
    """A client that is connected, and disconnected afterwards."""
    with offline_client(server, **options) as client:
        client.connect()
        yield client


def lose(client, device):
    """The server ends the connection, and the client has noticed."""
    device.disconnect()
    run_until(client, lambda: not client.connected)


def flush(client, timeout=5):
    """Poll until all that was sent is acknowledged, or dropped."""
    run_until(client, lambda: client.pending_messages_count == 0, timeout)


def subscribed(client, device, topic):
    """Poll until the server has the subscription to *topic*."""
    run_until(client, lambda: topic in device.subscriptions)


def payloads(device, topic):
    """What was published to topics that begin with *topic*, decoded, in order of arrival."""
    return [json.loads(message[1]) for message in device.messages if message[0].startswith(topic)]


def values(device):
    """The values of all telemetry, without their times."""
    return [row for _, row in device.telemetry]


def numbers(device, key="n"):
    """The values of *key* in order of arrival, each where it came first: after a loss some come
    again."""
    return list(dict.fromkeys(row[key] for row in values(device) if key in row))


def packets(server, direction="in"):
    """The names of all packets that the server got, or with "out" sent."""
    return [name for _, way, name in server.packets if way == direction]


class Notes:
    """A callback that notes its arguments in *calls* and returns *answer*, or raises it."""

    def __init__(self, answer=None):
        self.calls = []
        self._answer = answer

    def __call__(self, *arguments):
        self.calls.append(arguments)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    @property
    def firsts(self):
        """The first argument of each call."""
        return [call[0] for call in self.calls]


class LogNotes:
    """A logger that notes what it is told at any level, in *text*."""

    def __init__(self):
        self.text = ""

    def warning(self, text, *arguments):
        self.text += text % arguments + "\n"

    debug = info = error = warning


class Clock:
    """The library's clocks, which go on as usual and can be put forward.

    *epoch_s*: what `time.time()` says, None: what it says in truth; put it below 1e9 for a board
    whose clock is not set.
    """

    def __init__(self, monkeypatch):
        self.epoch_s = None
        self._skipped_s = 0
        self._ticks_ms = tb_device_mqtt.ticks_ms
        for name, stand_in in (
            ("ticks_ms", self.ticks_ms),
            ("time", self),
        ):
            monkeypatch.setattr(tb_device_mqtt, name, stand_in)

    def skip(self, seconds):
        self._skipped_s += seconds
        if self.epoch_s is not None:
            self.epoch_s += seconds

    def ticks_ms(self):
        return int(self._ticks_ms() + self._skipped_s * 1000) % (1 << 29)

    def monotonic_ns(self):
        return time.monotonic_ns() + int(self._skipped_s * 1000000000)

    def time(self):
        return time.time() + self._skipped_s if self.epoch_s is None else self.epoch_s

    @staticmethod
    def sleep(seconds):
        time.sleep(seconds)
