# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A cable is in; the address is kept by maintain_dhcp_lease(). Mirrors adafruit_wiznet5k 7."""


class WIZNET5K:
    def __init__(self, spi_bus, cs, mac=None):
        if len(mac.split(":")) != 6:
            raise ValueError("Invalid MAC address.")
        self.link_status = 1

    def maintain_dhcp_lease(self):
        print("keeps its address", flush=True)
