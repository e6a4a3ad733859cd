# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""A watchdog that resets the board if the loop should ever stand still.

An attempt to connect is the one step that blocks: DNS, TCP and TLS. It must be over in time. When
a dead network makes DNS take longer than that, the board resets and tries again.
"""

from gc import mem_free
from time import monotonic_ns

from microcontroller import watchdog

from tb_device_mqtt import TBDeviceMqttClient
from watchdog import WatchDogMode

SECOND = 1_000_000_000  # nanoseconds

watchdog.timeout = 8  # seconds; a Pico can't count further
watchdog.mode = WatchDogMode.RESET

client = TBDeviceMqttClient.from_settings()
client.connect_timeout = 3  # seconds
client.idle = watchdog.feed  # for whoever uses connect(), flush() or wait_for_msg(), which wait
client.connect(timeout=0)

due = monotonic_ns()
while True:
    client.check_for_msg()
    watchdog.feed()
    if monotonic_ns() >= due:
        due = monotonic_ns() + 10 * SECOND
        client.send_telemetry({"memory": mem_free()})
