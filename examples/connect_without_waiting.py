# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""Start at once, with or without a network: connect(timeout=0) neither waits nor raises.

For boards that nobody watches. The lamp shows whether the server is there.
"""

from gc import mem_free
from time import monotonic_ns

import board
from digitalio import DigitalInOut

from tb_device_mqtt import TBDeviceMqttClient

SECOND = 1_000_000_000  # nanoseconds

lamp = DigitalInOut(board.LED)
lamp.switch_to_output()


def show_state(client, _user_data, state, reason):
    print(state, "" if reason is None else reason)
    lamp.value = client.connected


client = TBDeviceMqttClient.from_settings()
client.on_state = show_state
client.connect(timeout=0)

due = monotonic_ns()
while True:
    client.check_for_msg()
    if monotonic_ns() >= due:
        due = monotonic_ns() + 10 * SECOND
        client.send_telemetry({"memory": mem_free()})  # waits until the server is there
