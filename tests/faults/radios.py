# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The radios of CircuitPython: who joins a lost network again, and what they raise.

* Espressif (ports/espressif/common-hal/wifi/__init__.c, STA_DISCONNECTED): by itself, as long as
  the access point still answers. After "no access point found" or "authentication failed" nothing
  tries again until `connect` is called.
* Pico W (ports/raspberrypi): nothing tries again, whatever the reason.
* AirLift, WIZnet: the program's own `connect_AP()`, the cable.
"""


class AccessPoint:
    """A router. *is_up*: it can be found; *password*: what it wants."""

    def __init__(self, password="secret"):
        self.is_up = True
        self.password = password
        self.joined = []  # (ssid, password) of each `connect`

    def join(self, ssid, password):
        self.joined.append((ssid, password))
        if not self.is_up:
            raise ConnectionError("No network with that ssid")
        if password != self.password:
            raise ConnectionError("Authentication failure")


class _NativeRadio:
    def __init__(self, access_point):
        self._access_point = access_point
        self._is_joined = True

    @property
    def connected(self):
        if not self._access_point.is_up:
            self._is_joined = False  # "no access point found": that is remembered
        return self._is_joined

    def connect(self, ssid, password=b"", *, channel=0, bssid=b"", timeout=None):
        self._is_joined = False
        self._access_point.join(ssid, password)
        self._is_joined = True


class EspressifRadio(_NativeRadio):
    is_weak = False  # the connection is lost, and the access point still answers

    @property
    def connected(self):
        return super().connected and not self.is_weak


class PicoRadio(_NativeRadio):
    """Once lost it stays lost."""

    def lose(self):
        self._is_joined = False


# Of this name is a board's own radio; ConnectionManager goes by it, too.
EspressifRadio.__name__ = PicoRadio.__name__ = "Radio"


class AirLiftRadio:
    """`ESP_SPIcontrol`. *answers*: the co-processor does."""

    def __init__(self, access_point):
        self._access_point = access_point
        self._is_joined = True
        self.answers = True

    @property
    def connected(self):
        if not self.answers:
            raise TimeoutError("ESP32 not responding")
        self._is_joined = self._is_joined and self._access_point.is_up
        return self._is_joined

    is_connected = connected

    def connect_AP(self, ssid, password):
        self._access_point.join(ssid, password)
        self._is_joined = True


class WiznetRadio:
    """`WIZNET5K`: the cable is in or not."""

    def __init__(self, access_point):
        self._access_point = access_point

    @property
    def link_status(self):
        return 1 if self._access_point.is_up else 0
