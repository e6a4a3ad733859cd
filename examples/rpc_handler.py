# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""One handler for every RPC, which sends its replies itself, at once or later."""

from gc import mem_free
from time import monotonic_ns

from tb_device_mqtt import TBDeviceMqttClient

SECOND = 1_000_000_000  # nanoseconds
later = []  # (when, request id) of replies that are still to come


def on_rpc(request_id, request_body):
    method, params = request_body["method"], request_body["params"]
    if method == "getMemory":
        client.send_rpc_reply(request_id, {"memory": mem_free()})
    elif method == "measure":  # the reply comes a second later, from the loop below
        later.append((monotonic_ns() + SECOND, request_id))
    else:
        client.send_rpc_reply(request_id, {"error": "%s(%s)?" % (method, params)})


client = TBDeviceMqttClient.from_settings()
client.set_server_side_rpc_request_handler(on_rpc)
client.connect()

while True:
    client.check_for_msg()
    if later and monotonic_ns() >= later[0][0]:
        client.send_rpc_reply(later.pop(0)[1], {"measured": 42})
