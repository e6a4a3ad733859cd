# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Deep sleep: the program ends, and `sleep_memory` is there again when it is started anew.

That memory is the file BOARD_SLEEP_MEMORY; without one the board had no power meanwhile. Whoever
starts the example again wakes the board up. Mirrors shared-bindings/alarm.
"""

import os
import sys
from pathlib import Path

from . import time

_FILE = Path(os.environ.get("BOARD_SLEEP_MEMORY", os.devnull))
_BYTES = 256  # RP2040 and nRF; Espressif has more

sleep_memory = bytearray(_FILE.read_bytes() if _FILE.is_file() else _BYTES)


def exit_and_deep_sleep_until_alarms(*alarms):
    if not all(isinstance(alarm, time.TimeAlarm) for alarm in alarms):
        raise TypeError("Expected an alarm")
    _FILE.write_bytes(sleep_memory)
    print("sleeps for %.0f s" % min(alarm.seconds_from_now for alarm in alarms), flush=True)
    sys.exit()
