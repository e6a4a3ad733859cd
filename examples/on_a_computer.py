# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""A Raspberry Pi or a PC as the device; the settings come from the environment there.

pip install .
THINGSBOARD_HOST=thingsboard.example THINGSBOARD_TOKEN=... python3 examples/on_a_computer.py
"""

from shutil import disk_usage
from time import monotonic_ns, sleep

from tb_device_mqtt import TBDeviceMqttClient

SECOND = 1_000_000_000  # nanoseconds
MEGABYTE = 1_000_000

try:
    with TBDeviceMqttClient.from_settings() as client:
        print("connected; Ctrl+C ends it")
        due = monotonic_ns()
        while True:
            client.check_for_msg()
            if monotonic_ns() >= due:
                due = monotonic_ns() + 10 * SECOND
                client.send_telemetry({"free_megabytes": disk_usage("/").free // MEGABYTE})
            sleep(0.01)  # other programs want to run too
except KeyboardInterrupt:
    print("disconnected")
