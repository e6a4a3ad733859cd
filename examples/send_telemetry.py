# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""A reading every ten seconds, from a loop that never sleeps and is free for everything else.

monotonic_ns() counts whole numbers. monotonic() is a short float on boards: good for days, but
after a year it moves in steps of 16 seconds, and a gate of ten stays open.
"""

from gc import mem_free
from time import monotonic_ns

from tb_device_mqtt import TBDeviceMqttClient

SECOND = 1_000_000_000  # nanoseconds

client = TBDeviceMqttClient.from_settings()
client.connect()

due = monotonic_ns()
while True:
    client.check_for_msg()
    now = monotonic_ns()
    if now >= due:
        due = now + 10 * SECOND
        client.send_telemetry({"memory": mem_free(), "uptime": now // SECOND})
