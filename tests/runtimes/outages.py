# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Scenarios: connections that end, and what was to be sent meanwhile."""

import time

from adafruit_ticks import ticks_ms as true_ticks_ms

import tb_device_mqtt


def numbered_readings(board):
    """Send until the host releases it, whatever the host does to the connection."""
    client = board.client(queue_size=500, queue_bytes=50000)
    is_over = []
    client.rpc("release")(is_over.append)
    client.connect()
    board.tell("online")
    sent = 0
    while not is_over:
        client.send_telemetry({"number": sent})
        sent += 1
        for _ in range(8):
            client.check_for_msg()
            time.sleep(0.0005)
    return board.finish(client, [sent, client.stats["dropped"]])


def replay(board):
    client = board.online_client()
    client.send_telemetry({"number": 0})
    client.flush(5)
    board.tell("online")
    board.run_until(client, lambda: not client.connected)
    for number in range(1, 11):
        client.send_telemetry({"number": number})
        if number == 5:
            client.send_attributes({"between": True})
    board.tell("queued", client.pending_messages_count)
    return board.finish(client, client.stats["resent"])


class _Tight:
    """A pool, or a socket of it, which takes little at once and on a board can't be polled."""

    def __init__(self, pool):
        self._real = pool

    def __getattr__(self, name):
        return getattr(self._real, name)

    def socket(self, *kind):
        return _Tight(self._real.socket(*kind))

    def send(self, data):
        return self._real.send(data[:1000])


def stalled(board):
    """Send more than the socket takes: for a while nobody reads at its other end."""
    client = board.releasable(board.client(queue_bytes=1000000, socket_pool=_Tight(board.pool())))
    client.max_message_bytes = 30000
    client.connect()
    client.flush(5)
    board.tell("online")
    board.run_until_released(client)
    for number in range(8):
        client.send_telemetry({"number": number, "text": "x" * 20000})
    for _ in range(50):
        client.check_for_msg()
    board.tell("queued", client.pending_messages_count >= 8)
    return board.finish(client, client.stats["connects"])


def no_memory(board):
    """Polls with a heap that gives nothing more; the host has answered meanwhile."""
    import micropython

    lock = getattr(micropython, "heap_lock", None)  # CPython can't
    client = board.online_client()
    for number in range(40):
        client.send_telemetry({"number": number})
    time.sleep(0.1)
    for _ in range(20 if lock else 0):
        lock()
        client.check_for_msg()
        micropython.heap_unlock()
    error = client.last_error
    return board.finish(client, [error and type(error).__name__, client.stats["connects"]])


def full_queue(board):
    client = board.client(queue_size=4)
    drops = []

    def note(_client, _data, topic, message_id, payload, reason):
        drops.append([topic, message_id, payload.decode(), reason])

    client.on_drop = note
    client.send_attributes({"kept": True})
    numbers = [client.send_telemetry({"number": number}) for number in range(6)]
    client.check_for_msg()
    told = list(drops)
    client.connect()
    return board.finish(client, {"numbers": numbers, "told": told, "stats": client.stats})


def late_subscriber(board):
    """Back after an outage, the client listens to what it listened to before."""
    client = board.releasable(board.client())
    calls = []
    client.subscribe_to_attribute("interval", lambda result, _: calls.append(result))
    client.connect()
    board.tell("online")
    board.run_until(client, lambda: client.stats["connects"] > 1 and client.connected)
    board.run_until_released(client)
    return board.finish(client, calls)


class _SetClock:
    """The module `time`, with another time of day."""

    def __init__(self, ahead_s):
        self.ahead_s = ahead_s

    def time(self):
        return int(time.time()) + self.ahead_s

    def __getattr__(self, name):
        return getattr(time, name)


def clock_set_back(board):
    clock = tb_device_mqtt.time = _SetClock(3600)
    client = board.client()
    client.send_telemetry({"number": 0})
    time.sleep(0.15)  # so long that a reading tells its own time
    client.connect()
    client.flush(5)
    client.disconnect()
    client.send_telemetry({"number": 1})
    clock.ahead_s = 0
    client.send_telemetry({"number": 2})
    time.sleep(0.15)
    client.connect()
    board.finish(client)
    tb_device_mqtt.time = time


def ticks_that_wrap(board):
    """`ticks_ms` begins again at 0, as on a board 65 seconds after its start."""
    started = true_ticks_ms()
    tb_device_mqtt.ticks_ms = lambda: (true_ticks_ms() - started - 150) % (1 << 29)
    errors = []
    client = board.online_client()

    def note(_result, error):
        errors.append(type(error).__name__)

    client.request_attributes("a", callback=note, timeout=0.3)
    before = tb_device_mqtt.ticks_ms()
    board.run_until(client, lambda: errors)
    after = tb_device_mqtt.ticks_ms()
    client.send_telemetry({"still": "there"})
    board.finish(client)
    tb_device_mqtt.ticks_ms = true_ticks_ms
    return {"wrapped": before > after, "errors": errors, "connects": client.stats["connects"]}
