# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Reads the names in a .mpy file, format 6; MicroPython's documents: "MicroPython .mpy files"."""

_HEADER_BYTES = 4  # "M" or "C", version, flags, bits of a small int


def names(data):
    """Every name and short text that the code in *data* needs; those that all boards have apart."""
    assert data[:2] in (b"M\x06", b"C\x06"), data[:2]
    count, position = _number(data, _HEADER_BYTES)
    _, position = _number(data, position)  # how many other objects
    found = set()
    for _ in range(count):
        size, position = _number(data, position)
        if size & 1:
            continue  # the place of a name in the table that is part of every firmware
        end = position + (size >> 1)
        found.add(data[position:end].decode())
        position = end + 1  # a zero byte ends it
    return found


def _number(data, position):
    """(number, position behind it): seven bits in a byte, the highest first."""
    number = 0
    while True:
        byte = data[position]
        position += 1
        number = number << 7 | byte & 127
        if byte < 128:
            return number, position
