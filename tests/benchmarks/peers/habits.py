# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What real programs do with a client: send and never poll, send and leave, send all at once.

Readings have numbers, ``{"n": 0}`` and so on. A program keeps account of what it handed over and
when, of the numbers that it was told are lost (a call raised, or a callback said so), and of its
longest call.
"""

import time

from clock import now_ms, now_s, now_us

_POLL_PAUSE_S = 0.001
_REPAIR_PAUSE_S = 0.1
_LISTED_MS = 1000  # between two readings of a list


def numbers(data):
    """Those of the readings in telemetry, whatever its shape."""
    if isinstance(data, list):
        return [number for each in data for number in numbers(each)]
    return [data.get("values", data)["n"]]


class Habits:
    """The steps of which the bench puts programs together."""

    def __init__(self, client):
        self._client = client
        self._taken = []  # [number, ms since 1970]
        self._longest_us = 0

    # --- steps ---

    def begin(self, port, ca=None, variant=None, listens=False):
        """Connect, with the client's own settings; *listens*: to shared attributes."""
        client = self._client
        client.is_tuned = False
        client.quality_of_service = 0 if variant == "QoS 0" else 1
        client.open(port, 60, ca, False, variant)
        if listens:
            client.listen()
        return {}

    def send_singly(self, first, count, pause_s=0):
        """One call for each reading, and no poll."""
        for number in range(first, first + count):
            self._send_reading(number)
            if pause_s:
                time.sleep(pause_s)
        return {}

    def send_list(self, count):
        """One call for a list of readings that have their times."""
        start_ms = now_ms() - count * _LISTED_MS
        times = [[number, start_ms + number * _LISTED_MS] for number in range(count)]
        self._taken += times
        self._hand_over(
            [{"ts": ts, "values": {"n": number, "temperature": 21.5}} for number, ts in times]
        )
        return {}

    def visit(self, port, count, ca=None, variant=None):
        """Connect, send, disconnect, without a pause."""
        self.begin(port, ca, variant)
        self.send_singly(0, count)
        self._timed(self._client.close)
        return {}

    def sample(self, seconds, every_s):
        """A main loop that polls, and takes a reading every so often, or as often as it can."""
        number, due, end = 0, now_s(), now_s() + seconds
        while now_s() < end:
            if now_s() >= due:
                due = max(due, now_s() - every_s) + every_s
                if not self._send_reading(number):
                    self._try_repair()
                number += 1
            self._turn()
        return {}

    def poll_for(self, seconds):
        """The same main loop without readings."""
        end = now_s() + seconds
        while now_s() < end:
            self._turn()
        return {}

    def account(self):
        return {
            "taken": self._taken,
            "told": sorted(self._client.told),
            "longest": self._longest_us / 1000,
        }

    # --- calls ---

    def _send_reading(self, number):
        self._taken.append([number, now_ms()])
        return self._hand_over({"n": number})

    def _hand_over(self, data):
        """Whether the call did not say that they are lost."""
        try:
            self._timed(self._client.telemetry, data)
        except Exception:  # whatever it is, the program was told
            self._client.told.update(numbers(data))
            return False
        return True

    def _turn(self):
        if self._client.can_poll:
            try:
                self._timed(self._client.poll)
            except self._client.errors:
                self._try_repair()
        time.sleep(_POLL_PAUSE_S)

    def _try_repair(self):
        try:
            self._timed(self._client.repair)
        except self._client.errors:
            time.sleep(_REPAIR_PAUSE_S)

    def _timed(self, method, *arguments):
        started = now_us()
        try:
            return method(*arguments)
        finally:
            self._longest_us = max(self._longest_us, now_us() - started)
