# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Mirrors shared-bindings/watchdog."""


class WatchDogMode:
    RAISE = "raise"
    RESET = "reset"
