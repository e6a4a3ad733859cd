# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Time servers that do not answer the first question, as before a network is quite there.

Mirrors adafruit_ntp 3: the question is asked when `datetime` is read, and OSError is the failure.
"""

import time

_real_time = time.time
_questions = []


class NTP:
    def __init__(self, socketpool, **_options):
        self._pool = socketpool

    @property
    def datetime(self):
        _questions.append(self)
        if len(_questions) == 1:
            raise OSError("NTP: no server responded")
        return time.gmtime(_real_time())
