# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A pin that prints what it is set to. As on a board, it is an input until it is told otherwise."""


class DigitalInOut:
    def __init__(self, pin):
        self._pin = pin
        self._value = False
        self._is_output = False

    def switch_to_output(self, value=False):
        self._is_output = True
        self.value = value

    @property
    def value(self):
        return self._value

    @value.setter
    def value(self, value):
        if not self._is_output:
            raise AttributeError("Cannot set value when direction is input.")
        self._value = bool(value)
        print("%s is %s" % (self._pin, self._value), flush=True)
