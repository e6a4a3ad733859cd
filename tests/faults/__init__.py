# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Everything that can go wrong between a client and a server, on demand.

* `proxy`: about bytes; a TCP proxy that delays, splits, swallows and cuts
* `scripted_broker`: about packets; a server that does what a function says
* `sockets`: about boards; the four socket families of CircuitPython over real sockets
"""
