# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The time series of one device, as the database of ThingsBoard holds them."""

from collections import deque


class TimeSeries:
    """One value per key and millisecond, and the later one wins.

    Seen on a running ThingsBoard 4.3: of 200 values of one key, sent without ``ts`` and without a
    pause, 20 are stored; all 200 are acknowledged.

    :param int keep: how many values are held, of all keys together; the first ones leave
    """

    def __init__(self, keep):
        self._keep = keep
        self._values = {}  # key: {ts in ms: value}
        self._order = deque()  # (key, ts) of each value, as they came

    def store(self, ts_ms, values):
        """Store the values of one row."""
        for key, value in values.items():
            of_key = self._values.setdefault(key, {})
            if ts_ms not in of_key:
                self._order.append((key, ts_ms))
            of_key[ts_ms] = value
        while len(self._order) > self._keep:
            self._drop(*self._order.popleft())

    def _drop(self, key, ts_ms):
        of_key = self._values[key]
        del of_key[ts_ms]
        if not of_key:
            del self._values[key]

    def stored(self, key):
        """``[(ts_ms, value), ...]`` of one key, the earliest time first."""
        return sorted(self._values.get(key, {}).items())

    def latest(self, key):
        """The value of the latest time, or None."""
        of_key = self._values.get(key)
        return of_key[max(of_key)] if of_key else None

    def all(self):
        """``{key: [(ts_ms, value), ...]}`` of every key."""
        return {key: self.stored(key) for key in self._values}
