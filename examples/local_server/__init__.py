# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A ThingsBoard stand-in on this computer, for the demo and the tests.

.. code-block:: python

    with LocalServer() as server:
        device = server.add_device("Roof", token="TOKEN")
        # let a client connect to server.port with this token
        device.wait(lambda d: d.telemetry)
        device.rpc("getTemperature")
"""

from .device import Device
from .faults import Faults
from .limits import RateLimits
from .server import LocalServer

__all__ = ("Device", "Faults", "LocalServer", "RateLimits")
