# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The clock of the board, see board_clock."""

import board_clock


class RTC:
    @property
    def datetime(self):
        raise NotImplementedError

    @datetime.setter
    def datetime(self, _value):
        board_clock.set_to_now()
