# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What memory.py has a client do on a board. Names and callbacks are made here, and so are no part
of what a scene takes: a program has them as constants of its own."""

import gc
import sys

import loopback
from thingsboard import ThingsBoard

sys.modules["select"] = loopback

from tb_device_mqtt import TBDeviceMqttClient  # noqa: E402

KEYS = ["key%d" % number for number in range(32)]
TOPICS = ["site/roof/%d" % number for number in range(32)]
READING = {"temperature": 21.5}
WARM_UP = 50  # until all that is remembered of the last few is there
RPC = b'{"method":"setLamp","params":true}'

server = ThingsBoard()
client = TBDeviceMqttClient("board", 1883, "TOKEN", socket_pool=loopback.Pool(server))
client._link.backoff_ms = 0
done = {"readings": 0, "calls": 0}


def ignore(*_args):
    return True


def poll_until(condition):
    for _ in range(1000):
        if condition():
            return
        client.check_for_msg()
    raise RuntimeError("%s, %s" % (client.state, client.last_error))


def is_settled():
    return client.connected and not client.pending_messages_count and not server.answers


def settle():
    poll_until(is_settled)


# --- what something takes for as long as it is there ---


def start():
    client.connect()
    client.rpc("setLamp")(ignore)
    client.request_attributes(callback=ignore)
    exchange(WARM_UP)


def watch_attributes(keys):
    for key in keys:
        client.subscribe_to_attribute(key, ignore)
    settle()


def subscribe(topics):
    for topic in topics:
        client.subscribe(topic, ignore)
    settle()


def register(methods):
    for method in methods:
        client.rpc(method)(ignore)
    settle()


def request_attributes(keys):
    server.replies = False
    for key in keys:
        client.request_attributes(key, callback=ignore)
        settle()


def call(methods):
    for method in methods:
        client.send_rpc_call(method, None, ignore)
        settle()


def share(keys):
    """A name for each, and an integer, which takes nothing."""
    len(client.shared)  # from its first use on it is known
    settle()
    for key in keys:
        server.push_attributes(b'{"%s":1}' % key.encode())
        settle()


def send_unacknowledged(keys):
    server.acknowledges = False
    for _ in keys:
        client.send_telemetry(READING)


def queue_offline(keys):
    client.disconnect()
    for _ in keys:
        client.send_telemetry(READING)


# --- what something takes while it happens ---


def allocated(action):
    """Bytes of heap in use at the end of *action* and not at its beginning, our server's apart."""
    own, before = server.own_bytes, gc.mem_alloc()
    action()
    return gc.mem_alloc() - before - (server.own_bytes - own)


def send_telemetry():
    done["readings"] += 1
    client.send_telemetry(READING)
    while client.pending_messages_count:
        client.check_for_msg()


def answer_rpc():
    done["calls"] += 1
    server.call(done["calls"], RPC)
    settle()


def poll(times):
    for _ in range(times):
        client.check_for_msg()


def exchange(times):
    """Messages in both directions, and now and then a cut with something under way."""
    for number in range(times // 2):
        send_telemetry()
        answer_rpc()
        if number % 25 == 12:
            cut()


def missing():
    """Readings and replies that were not acknowledged, or replies that never came."""
    acknowledged = client.stats["acknowledged"] - 1  # the attribute request
    return max(sum(done.values()) - acknowledged, done["calls"] - server.rpc_replies)


def cut():
    done["readings"] += 1
    client.send_telemetry(READING)
    server.cut()
    poll_until(lambda: not client.connected)
    settle()
