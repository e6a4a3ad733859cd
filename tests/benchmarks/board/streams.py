# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""MicroPython's own socket over that of loopback, for clients that do not take a pool."""

import sys

import loopback

AF_INET = loopback.AF_INET
SOCK_STREAM = loopback.SOCK_STREAM


class socket(loopback.Socket):
    def setblocking(self, is_blocking):
        pass

    def write(self, data, size=None):
        if isinstance(data, str):
            data = data.encode()
        return self.send(data if size is None else data[:size])

    def read(self, size):
        buffer = bytearray(size)
        try:
            return bytes(buffer[: self.recv_into(buffer)])
        except OSError:
            return None


def getaddrinfo(host, port, family=0, kind=0):
    return [(AF_INET, SOCK_STREAM, 0, "", (host, port))]


sys.modules["socket"] = sys.modules["streams"]
