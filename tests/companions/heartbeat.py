# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A companion that shows the server that the board lives::

client.attach(Heartbeat(client, 60000))
"""

from adafruit_ticks import ticks_diff, ticks_ms


class Heartbeat:
    """Sends ``{"alive": number}`` every *interval_ms*; what was missed offline is not made up for.

    :param client: a `TBDeviceMqttClient`
    :param int interval_ms: milliseconds
    """

    def __init__(self, client, interval_ms):
        self._client = client
        self._interval_ms = interval_ms
        self._sent_at = ticks_ms()
        self._count = 0

    def poll(self):
        """Called in each `check_for_msg`."""
        now = ticks_ms()
        if ticks_diff(now, self._sent_at) < self._interval_ms:
            return
        self._sent_at = now
        if self._client.connected:
            self._count += 1
            self._client.send_telemetry({"alive": self._count})
