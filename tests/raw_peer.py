# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A peer of the stand-in that knows only bytes, for the odd cases."""

import socket
import struct

WAIT_S = 5
NOTHING_S = 0.15  # how long silence is listened to


def text(value):
    raw = value.encode()
    return struct.pack("!H", len(raw)) + raw


def packet(first, body):
    head, length = bytearray((first,)), len(body)
    while length > 127:
        head.append(length % 128 + 128)
        length //= 128
    head.append(length)
    return bytes(head) + body


def connect_packet(client_id="", username=None, password=None, clean=True):
    flags = 2 * clean + 128 * (username is not None) + 64 * (password is not None)
    body = text("MQTT") + bytes((4, flags, 0, 60)) + text(client_id)
    for field in (username, password):
        body += text(field) if field is not None else b""
    return packet(0x10, body)


def publish_packet(topic, payload, qos=1, packet_id=1, dup=False):
    number = struct.pack("!H", packet_id) if qos else b""
    return packet(0x30 | qos << 1 | dup << 3, text(topic) + number + payload)


def subscribe_packet(*filters, packet_id=1):
    body = b"".join(text(name) + bytes((qos,)) for name, qos in filters)
    return packet(0x82, struct.pack("!H", packet_id) + body)


def puback(packet_id):
    return b"\x40\x02" + struct.pack("!H", packet_id)


class Peer:
    """A blocking MQTT client of bytes."""

    def __init__(self, server, context=None):
        self.socket = socket.create_connection(("127.0.0.1", server.port), WAIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def send(self, *packets):
        self.socket.sendall(b"".join(packets))

    def connect(self, token="TOKEN", **others):
        self.send(connect_packet(username=token, **others))
        assert self.read() == b"\x20\x02\x00\x00"
        return self

    def subscribe(self, *names, qos=1):
        self.send(subscribe_packet(*((name, qos) for name in names)))
        return self.read()

    def publish(self, topic, payload, **others):
        self.send(publish_packet(topic, payload, **others))

    def read(self):
        """One whole packet, or b"" at the end of the connection."""
        head = self._read_exactly(2)
        if not head:
            return b""
        length, shift = head[1] & 127, 7
        while head[-1] & 128:
            head += self._read_exactly(1)
            length |= (head[-1] & 127) << shift
            shift += 7
        return head + self._read_exactly(length)

    def read_publish(self):
        """(topic, payload, QoS, packet id) of the next packet, which has to be a PUBLISH."""
        data = self.read()
        assert data[0] >> 4 == 3, data
        start = 2
        while data[start - 1] & 128:
            start += 1
        body = data[start:]
        (length,) = struct.unpack_from("!H", body)
        topic, rest, qos = body[2 : 2 + length].decode(), body[2 + length :], data[0] >> 1 & 3
        if not qos:
            return topic, rest, 0, None
        return topic, rest[2:], 1, struct.unpack_from("!H", rest)[0]

    def _read_exactly(self, count):
        data = b""
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionResetError:
                return b""
            if not piece:
                return b""
            data += piece
        return data

    def is_closed(self):
        return self.read() == b""

    def ends_with_reset(self):
        try:
            return self.socket.recv(1) != b"" and False
        except ConnectionResetError:
            return True

    def hears_nothing(self):
        self.socket.settimeout(NOTHING_S)
        try:
            self.socket.recv(1)
        except socket.timeout:
            return True
        finally:
            self.socket.settimeout(WAIT_S)
        return False

    def is_alive(self):
        """Nothing waits to be read, and a ping is answered."""
        self.send(b"\xc0\x00")
        return self.read() == b"\xd0\x00"

    def close(self):
        self.socket.close()
