# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Mirrors shared-bindings/rainbowio: 0 to 255 is once around."""


def colorwheel(position):
    return int(position) & 255
