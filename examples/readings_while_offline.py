# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""Readings from the first second on, each with its own time. lib needs adafruit_ntp too."""

from gc import mem_free
from time import monotonic_ns, time

from adafruit_connection_manager import get_radio_socketpool
from adafruit_ntp import NTP
from rtc import RTC
from wifi import radio

from tb_device_mqtt import TBDeviceMqttClient

SECOND = 1_000_000_000  # nanoseconds


def set_clock(_client, _user_data, state, _reason):
    """Just before an attempt to connect there is a network, and readings still wait for it."""
    if state == "connecting" and time() < 1_700_000_000:  # it counts from the board's start
        try:
            RTC().datetime = NTP(get_radio_socketpool(radio)).datetime
        except (OSError, ArithmeticError) as error:
            print("no time yet:", error)


client = TBDeviceMqttClient.from_settings(queue_size=200, queue_bytes=16384)
client.on_state = set_clock
client.connect(timeout=0)
due = monotonic_ns()
while True:
    client.check_for_msg()
    if monotonic_ns() >= due:
        due = monotonic_ns() + 10 * SECOND
        client.send_telemetry({"memory": mem_free()})
