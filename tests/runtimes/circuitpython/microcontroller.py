# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The processor: its number."""


class cpu:
    uid = b"\xe6\x60\x58\x38\x83\x72\x4a\x32"
