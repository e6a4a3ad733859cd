# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The stand-in as a process that can be killed: `python3 -m benchmarks.fleet_server`.

``fleet_server PORT DEVICES LEDGER`` knows the devices with the tokens T0, T1, ... What arrives is
in the file LEDGER before it is acknowledged, so that it outlives the process.
"""

import os
import sys
import threading
import time

from local_server import LocalServer


class Ledger:
    """Takes the place of a device's stored telemetry: one line ``DEVICE NUMBER`` a reading."""

    def __init__(self, file, device):
        self._file = file
        self._device = device

    def append(self, row):
        os.write(self._file, b"%d %d\n" % (self._device, row[1]["n"]))


def main(port, devices, path):
    ledger = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    server = LocalServer(port)
    for number in range(devices):
        device = server.add_device("Device %d" % number, token="T%d" % number)
        device._record.telemetry = Ledger(ledger, number)
    server.keep = 1
    server.start()
    # time.monotonic() counts for the whole machine: whoever started us compares it with its own.
    os.write(ledger, b"up %.6f\n" % time.monotonic())
    threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
