# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What is left behind when the same thing is done very often."""

import time

from helpers import run_until

from . import rig
from .tables import Row, Table, at_most, exactly

# A block that the library gave back and the server took from a free list still counts as ours, so
# the server is to keep little; one small object for each reconnect would be above this.
_LEFT_BYTES = 8192
_KEPT = 1
_WARM_UP = 20
_IN_HAND = 32
_TIMEOUT_S = 60

# --- reconnects ---


def reconnects(times=200):
    """What do reconnects leave behind?"""
    pool = rig.Pool()
    with rig.stand_in(keep=_KEPT) as (server, device), rig.memory_trace() as held_bytes:
        with rig.online(server.port, rpc=abs, socket_pool=pool) as client:
            client._link.backoff_ms = 0
            _reconnect(client, device, _WARM_UP)
            before = held_bytes()
            watch = rig.Stopwatch()
            _reconnect(client, device, times)
            took_s = watch.s
            left = held_bytes() - before
            while_online, of_server = len(pool.open), server.connections
        afterwards = len(pool.open)
    return Table(
        [
            Row("open sockets while online", while_online, "", exactly(1)),
            Row("connections of the server", of_server, "", exactly(1)),
            Row("open sockets after disconnect()", afterwards, "", exactly(0)),
            Row("bytes left behind", left, "B", at_most(_LEFT_BYTES)),
            Row("time", took_s, "s"),
        ],
        "%d times FIN or RST, each time until a message is acknowledged again. Bytes are those of "
        "the library, MiniMQTT and ConnectionManager." % times,
    )


def _reconnect(client, device, times):
    for count in range(times):
        device.disconnect(rst=bool(count % 2))
        run_until(client, lambda: not client.connected)
        run_until(client, lambda: client.connected)
        client.send_telemetry(rig.reading(count))
        run_until(client, lambda: not client.pending_messages_count)


# --- long_run ---


def long_run(messages=100000, polls=100000):
    """What do many messages and polls leave behind?"""
    with rig.stand_in(keep=_KEPT) as (server, _device), rig.online(server.port) as client:
        watch = rig.Stopwatch()
        _send(client, messages)
        rate = messages / watch.s
        with rig.memory_trace() as held_bytes:
            _send(client, _WARM_UP)
            before = held_bytes()
            _send(client, messages)
            after_messages = held_bytes()
            for _ in range(polls):
                client.check_for_msg()
            after_polls = held_bytes()
        missing = 2 * messages + _WARM_UP - client.stats["acknowledged"]
    return Table(
        [
            Row("bytes left by the messages", after_messages - before, "B", at_most(_LEFT_BYTES)),
            Row("bytes left by the polls", after_polls - after_messages, "B", at_most(_LEFT_BYTES)),
            Row("not acknowledged", missing, "", exactly(0)),
            Row("messages a second, without tracemalloc", rate, "/s"),
        ],
        "%d messages of QoS 1 without tracemalloc and as many with it, then %d polls. Bytes as in "
        "reconnects." % (messages, polls),
    )


def _send(client, messages):
    for number in range(messages):
        while client.pending_messages_count >= _IN_HAND:
            client.check_for_msg()
            time.sleep(0)  # the server's thread is to run
        client.send_telemetry(rig.reading(number))
    client.flush(_TIMEOUT_S)
