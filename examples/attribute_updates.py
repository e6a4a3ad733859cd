# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""Shared attributes as settings: change "interval" on the server, and the board follows.

They are read again after each connect, so that no change is missed.
"""

from gc import mem_free
from time import monotonic_ns

from tb_device_mqtt import TBDeviceMqttClient

SECOND = 1_000_000_000  # nanoseconds


def interval():
    """Seconds between two readings; what nobody can use counts as ten."""
    seconds = client.shared["interval"]
    return seconds if isinstance(seconds, (int, float)) and seconds >= 1 else 10


client = TBDeviceMqttClient.from_settings()
client.shared.setdefault("interval", 10)  # for as long as the server knows none
client.subscribe_to_attribute("interval", lambda result, *_args: print("changed:", result))
client.connect()

sent = monotonic_ns()
while True:
    client.check_for_msg()
    if monotonic_ns() - sent >= interval() * SECOND:
        sent = monotonic_ns()
        client.send_telemetry({"memory": mem_free()})
