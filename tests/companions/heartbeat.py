# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A companion that shows the server that the board lives; see docs/companions.md."""

from adafruit_ticks import ticks_add, ticks_diff, ticks_ms


class Heartbeat:
    """Telemetry every *interval_ms*; a beat that is due while offline is left out."""

    def __init__(self, client, interval_ms):
        self._client = client
        self._interval_ms = interval_ms
        self._due = ticks_ms()
        self._beats = 0

    def poll(self):
        now = ticks_ms()
        if ticks_diff(now, self._due) < 0:
            return
        self._due = ticks_add(now, self._interval_ms)
        if self._client.connected:
            self._beats += 1
            self._client.send_telemetry({"beats": self._beats})
