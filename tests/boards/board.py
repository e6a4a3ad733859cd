# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The pins of a board, as far as examples name them."""


def SPI():
    return "SPI"


def __getattr__(name):
    return name
