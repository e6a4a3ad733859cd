# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A companion that keeps to a rate limit of the server."""

from adafruit_ticks import ticks_diff, ticks_ms


class Limiter:
    """Lets *messages* messages with *data_points* data points leave in *window_ms*."""

    def __init__(self, messages, data_points, window_ms):
        self._most_messages = messages
        self._most_points = data_points
        self._window_ms = window_ms
        self._began_at = ticks_ms()
        self._messages = self._points = 0  # of this window

    def poll(self):
        """Look often: in 3 days `ticks_ms` has come so far that it seems to go backwards."""
        now = ticks_ms()
        if ticks_diff(now, self._began_at) >= self._window_ms:
            self._began_at = now
            self._messages = self._points = 0

    def may_send(self, topic, data_points):
        """Whether one more fits into this window."""
        self.poll()
        # What is above the limit by itself would never leave: a window of its own has to do.
        has_points = self._points == 0 or self._points + data_points <= self._most_points
        return self._messages < self._most_messages and has_points

    def sent(self, topic, data_points):
        """It has left."""
        self._messages += 1
        self._points += data_points
