# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""Wake up, measure, send, be sure that it has arrived, and sleep for ten minutes.

Deep sleep ends the program, and each wake-up begins it anew. A reading that nobody has confirmed
after some seconds is given up: the board sleeps all the same, and tells next time how many those
were. compact=True saves bytes, and what is sent right away travels together with CONNECT.
"""

from gc import mem_free
from time import monotonic

import alarm

from tb_device_mqtt import TBDeviceMqttClient

MINUTE = 60  # seconds

given_up = alarm.sleep_memory[0]  # it outlasts deep sleep, and is 0 after power-on

client = TBDeviceMqttClient.from_settings(compact=True)
client.connect(timeout=0)
client.send_telemetry({"memory": mem_free(), "given_up": given_up})
is_confirmed = client.flush(timeout=8)
client.disconnect()

alarm.sleep_memory[0] = 0 if is_confirmed else min(given_up + 1, 255)
wake_up = alarm.time.TimeAlarm(monotonic_time=monotonic() + 10 * MINUTE)
alarm.exit_and_deep_sleep_until_alarms(wake_up)
