# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""No client at all: what the main loop does without one."""

from vocabulary import Client, run

run(Client())
