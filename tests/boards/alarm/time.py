# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Mirrors shared-bindings/alarm/time."""

from time import monotonic


class TimeAlarm:
    def __init__(self, *, monotonic_time):
        self.monotonic_time = monotonic_time
        if self.seconds_from_now < 0:
            raise ValueError("Time is in the past.")

    @property
    def seconds_from_now(self):
        return self.monotonic_time - monotonic()
