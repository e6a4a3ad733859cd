# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The loopback socket as a ThingsBoard: attributes, RPCs, and what can go wrong on a line.

It keeps account of the heap that it takes itself, so that it can be subtracted.
"""

import errno
import gc

from loopback import Socket

_PUBLISH = 0x30
_SUBSCRIBE = 0x80
_ATTRIBUTES = b"v1/devices/me/attributes"
_ATTRIBUTES_REQUEST = b"v1/devices/me/attributes/request/"
_ATTRIBUTES_RESPONSE = b"v1/devices/me/attributes/response/"
_RPC_REQUEST = b"v1/devices/me/rpc/request/"
_RPC_RESPONSE = b"v1/devices/me/rpc/response/"


class ThingsBoard(Socket):
    def __init__(self):
        super().__init__()
        self.acknowledges = True
        self.replies = True  # to attribute requests
        self.rpc_replies = 0  # that came
        self.own_bytes = 0
        self._is_cut = False

    def connect(self, address):
        self._is_cut = False

    def cut(self):
        self._is_cut = True
        self.answers = b"?"  # what poll() is to see

    def send(self, data):
        before = gc.mem_alloc()
        if self._is_cut:
            raise OSError(errno.ECONNRESET)
        self.sent += bytes(data)
        while self._take_packet():
            pass
        self.own_bytes += gc.mem_alloc() - before
        return len(data)

    def recv_into(self, buffer, size=0):
        before = gc.mem_alloc()
        if self._is_cut:
            raise OSError(errno.ECONNRESET)
        size = super().recv_into(buffer, size)
        self.own_bytes += gc.mem_alloc() - before
        return size

    def _take_packet(self):
        """Deal with a whole packet, if there is one."""
        size = shift = 0
        start = 1
        while True:
            if start >= len(self.sent):
                return False
            byte = self.sent[start]
            start += 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if len(self.sent) < start + size:
            return False
        head, body = self.sent[0], self.sent[start : start + size]
        self.sent = self.sent[start + size :]
        self.answer(head, body)
        return True

    def answer(self, head, body):
        kind = head & 0xF0
        if kind == _SUBSCRIBE:
            granted = bytes(_count_topics(body))
            self.answers += b"\x90" + bytes((2 + len(granted),)) + body[:2] + granted
        elif kind != _PUBLISH or self.acknowledges:
            super().answer(head, body)
        if kind == _PUBLISH:
            self._take_message(body[2 : 2 + (body[0] << 8 | body[1])])

    def _take_message(self, topic):
        if topic.startswith(_RPC_RESPONSE):
            self.rpc_replies += 1
        elif topic.startswith(_ATTRIBUTES_REQUEST) and self.replies:
            number = topic[len(_ATTRIBUTES_REQUEST) :]
            self._push(_ATTRIBUTES_RESPONSE + number, b'{"shared":{}}')

    def call(self, number, body):
        self._push(_RPC_REQUEST + str(number).encode(), body)

    def push_attributes(self, body):
        self._push(_ATTRIBUTES, body)

    def _push(self, topic, payload):
        """A PUBLISH of QoS 0."""
        size = 2 + len(topic) + len(payload)
        length = bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))
        text = bytes((len(topic) >> 8, len(topic) & 255)) + topic
        self.answers += b"\x30" + length + text + payload


def _count_topics(body):
    """Of a SUBSCRIBE: behind its packet id each has two bytes of length, itself, and a QoS."""
    count, start = 0, 2
    while start < len(body):
        start += 2 + (body[start] << 8 | body[start + 1]) + 1
        count += 1
    return count
