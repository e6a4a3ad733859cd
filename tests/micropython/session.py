# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""One session against the stand-in on MicroPython; prints what happened as JSON.

Arguments: port of the stand-in. sys.path is set by test_micropython.py through MICROPYPATH.
"""

import gc
import json
import sys
import time

from socketpool import SocketPool

from tb_device_mqtt import TBDeviceMqttClient

client = TBDeviceMqttClient("127.0.0.1", sys.argv[1], "TOKEN_A", socket_pool=SocketPool())
seen = {"attributes": [], "pushed": [], "states": []}
client.on_state = lambda _client, _user_data, state, _reason: seen["states"].append(state)
client.subscribe_to_attribute("interval", lambda result, *_: seen["pushed"].append(result))


@client.rpc("add")
def add(numbers):
    return sum(numbers)


@client.rpc("fail")
def fail(_params):
    raise RuntimeError("on purpose")


@client.rpc("stop")
def stop(_params):
    seen["is_over"] = True


client.shared.setdefault("unit", "s")


def run_until(condition):
    end = time.ticks_ms() + 10000
    while not condition() and time.ticks_ms() < end:
        client.check_for_msg()


def idle_bytes(polls):
    """Bytes on the heap per poll in which nothing happens."""
    client.flush(5)
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    for _ in range(polls):
        client.check_for_msg()
    used = gc.mem_alloc() - before
    gc.enable()
    return used / polls


client.connect()
client.send_telemetry({"temperature": 0.1 + 0.2, "text": "é"})
client.send_telemetry([{"a": 1}, {"b": 2}])
client.send_telemetry({"ts": 1700000000000, "values": {"c": 3}})
client.send_telemetry([{"ts": 1700000000001, "values": {"c": 4}}, {"ts": 2, "values": {"c": 5}}])
client.send_attributes({"version": "x"})
client.request_attributes("version", callback=lambda *got: seen["attributes"].append(got[0]))
client.flush(5)
seen["idle_bytes"] = idle_bytes(1000)
run_until(lambda: not client.connected)  # the test cuts the connection here
for count in range(10):
    client.send_telemetry({"offline": count})
run_until(lambda: "is_over" in seen)
client.flush(5)
client.disconnect()
seen["stats"] = client.stats
seen["shared"] = [client.shared["interval"], client.shared["unit"]]
print(json.dumps(seen))
