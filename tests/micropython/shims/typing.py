# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""MicroPython never looks at annotations; the names only have to be there."""


class _Anything:
    def __getitem__(self, _key):
        return self


_anything = _Anything()


def __getattr__(_name):
    return _anything
