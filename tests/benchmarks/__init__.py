# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What the library costs and how fast it is, each a named question with a table as its answer.

`bench` asks them; `rig` has what they share, `tables` what they return. Each benchmark is a
function whose arguments are its sizes: tests/test_benchmarks.py asks all of them in small.
"""
