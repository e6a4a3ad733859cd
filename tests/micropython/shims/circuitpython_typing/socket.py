# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Names of types that ConnectionManager imports."""

from typing import __getattr__  # noqa: F401
