# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The processor: its number, and its watchdog, which ends the program when it is not fed.

Mirrors shared-bindings/microcontroller and /watchdog with WatchDogMode.RESET.
"""

import os
import threading
import time

import board_clock


class _Processor:
    uid = bytes.fromhex("e660583883724a32")


class _WatchDog:
    timeout = None
    mode = None

    def __init__(self):
        self.feed()
        threading.Thread(target=self._watch, daemon=True).start()

    def feed(self):
        self._fed_ns = board_clock.monotonic_ns()

    def _watch(self):
        while True:
            time.sleep(0.05)
            unfed_s = (board_clock.monotonic_ns() - self._fed_ns) / 1000000000
            if self.mode is not None and unfed_s > self.timeout:
                print("reset by the watchdog", flush=True)
                os._exit(1)


cpu = _Processor()
watchdog = _WatchDog()
