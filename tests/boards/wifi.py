# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A board's own Wi-Fi, connected: CircuitPython joins the network of settings.toml by itself."""


class Radio:
    connected = True

    def connect(self, ssid, password=b"", *, channel=0, bssid=b"", timeout=None):
        print("joins", ssid, flush=True)
        self.connected = True


radio = Radio()
