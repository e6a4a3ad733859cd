# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A server that does what a function says, packet by packet.

.. code-block:: python

    def script(connection):
        connection.accept()
        packet = connection.expect(PUBLISH)
        connection.send(publish("v1/devices/me/attributes", b'{"a":1}'))
        connection.puback(packet.packet_id)

    with ScriptedBroker(script) as broker:
        client = TBDeviceMqttClient("127.0.0.1", broker.port, ...)

The wire format is typed from MQTT 3.1.1, not taken from us: a mistake must not agree with itself.
"""

import socket
import struct
import threading
from collections import namedtuple

CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 8, 9, 10, 11
PINGREQ, PINGRESP, DISCONNECT = 12, 13, 14

_CLOSE_TIMEOUT_S = 5
_LINGER_S = 1  # after a FIN: read on for so long, else close() makes a reset of it

# --- packets that a server sends ----------------------------------------------------------------


def packet(first_byte, body=b""):
    return bytes([first_byte]) + remaining_length(len(body)) + body


def remaining_length(size):
    encoded = bytearray()
    while size > 127:
        encoded.append(size % 128 + 128)
        size //= 128
    encoded.append(size)
    return bytes(encoded)


def connack(code=0, session_present=0):
    return packet(0x20, bytes([session_present, code]))


def publish(topic, payload=b"", quality_of_service=0, packet_id=1, duplicate=False, retain=False):
    name = topic.encode() if isinstance(topic, str) else topic
    body = struct.pack(">H", len(name)) + name
    if quality_of_service:
        body += struct.pack(">H", packet_id)
    flags = duplicate << 3 | quality_of_service << 1 | retain
    return packet(0x30 | flags, body + payload)


def puback(packet_id):
    return packet(0x40, struct.pack(">H", packet_id))


def suback(packet_id, codes=(1,)):
    return packet(0x90, struct.pack(">H", packet_id) + bytes(codes))


def unsuback(packet_id):
    return packet(0xB0, struct.pack(">H", packet_id))


def pingresp():
    return packet(0xD0)


# --- packets that a client sends ----------------------------------------------------------------

Credentials = namedtuple(
    "Credentials", "client_id username password keep_alive clean_session will_topic will_payload"
)


class Packet:
    """A packet as it came: *type* and *flags* from the first byte, *body* behind the length."""

    def __init__(self, first_byte, body):
        self.type = first_byte >> 4
        self.flags = first_byte & 15
        self.body = body

    def __repr__(self):
        return "Packet(type=%d, flags=%d, body=%r)" % (self.type, self.flags, self.body)

    @property
    def whole(self):
        """All of it as bytes."""
        return packet(self.type << 4 | self.flags, self.body)

    @property
    def quality_of_service(self):
        return self.flags >> 1 & 3

    @property
    def duplicate(self):
        return bool(self.flags & 8)

    @property
    def topic(self):
        return self.body[2 : self._after_topic].decode()

    @property
    def payload(self):
        return self.body[self._after_topic + (2 if self.quality_of_service else 0) :]

    @property
    def packet_id(self):
        start = self._after_topic if self.type == PUBLISH else 0
        return struct.unpack_from(">H", self.body, start)[0]

    @property
    def _after_topic(self):
        return 2 + struct.unpack_from(">H", self.body)[0]

    @property
    def filters(self):
        """``[(topic filter, quality of service), ...]`` of SUBSCRIBE, of UNSUBSCRIBE with None."""
        found, rest = [], self.body[2:]
        while rest:
            name, rest = _take_string(rest)
            asked = None
            if self.type == SUBSCRIBE:
                asked, rest = rest[0], rest[1:]
            found.append((name.decode(), asked))
        return found

    @property
    def credentials(self):
        """What a CONNECT says; what it does not say is None. The password is bytes."""
        flags, keep_alive = struct.unpack_from(">BH", self.body, 7)
        client_id, rest = _take_string(self.body[10:])
        values = []
        for mask in (0x04, 0x04, 0x80, 0x40):  # will topic, will payload, user name, password
            value = None
            if flags & mask:
                value, rest = _take_string(rest)
            values.append(value)
        will_topic, will_payload, username, password = values
        return Credentials(
            client_id.decode(),
            None if username is None else username.decode(),
            password,
            keep_alive,
            bool(flags & 0x02),
            None if will_topic is None else will_topic.decode(),
            will_payload,
        )


def packets_of(data):
    """The packets of which *data* consists; it has to end where one ends."""
    found, rest = [], bytes(data)
    while rest:
        size = shift = 0
        position = 1
        while True:
            digit = rest[position]
            size |= (digit & 127) << shift
            position, shift = position + 1, shift + 7
            if digit < 128:
                break
        end = position + size
        assert end <= len(rest), "the last packet is not complete: %r" % rest[:40]
        found.append(Packet(rest[0], rest[position:end]))
        rest = rest[end:]
    return found


def _take_string(data):
    end = 2 + struct.unpack_from(">H", data)[0]
    return data[2:end], data[end:]


# --- the server ---------------------------------------------------------------------------------


class Connection:
    """One client, as the script sees it. *number* counts from 1; *packets*: all that were read."""

    def __init__(self, sock, number):
        self._socket = sock
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = number
        self.packets = []

    # --- receiving: EOFError when the client has gone, which ends the script quietly

    def read_exactly(self, count):
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def read_packet(self):
        first_byte = self.read_exactly(1)[0]
        size = shift = 0
        while True:
            digit = self.read_exactly(1)[0]
            size |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                break
        read = Packet(first_byte, self.read_exactly(size))
        self.packets.append(read)
        return read

    def expect(self, packet_type):
        """The next packet, which has to be of this type."""
        read = self.read_packet()
        assert read.type == packet_type, "expected type %d, got %r" % (packet_type, read)
        return read

    def wait_for(self, packet_type):
        """The next packet of this type; the others are in *packets*."""
        while True:
            read = self.read_packet()
            if read.type == packet_type:
                return read

    def read_until_end(self):
        """Read on and answer nothing until the client goes."""
        while True:
            self.read_packet()

    # --- sending

    def send(self, data):
        self._socket.sendall(data)

    def accept(self, code=0, session_present=0):
        """Read CONNECT, which is returned, and answer it."""
        read = self.expect(CONNECT)
        self.send(connack(code, session_present))
        return read

    def puback(self, packet_id):
        self.send(puback(packet_id))

    def suback(self, subscribe, codes=None):
        """Grant what the SUBSCRIBE packet asks for, or *codes*."""
        if codes is None:
            codes = [asked for _, asked in subscribe.filters]
        self.send(suback(subscribe.packet_id, codes))

    def answer(self, read):
        """What a friendly broker says to this packet."""
        if read.type == CONNECT:
            self.send(connack())
        elif read.type == PUBLISH and read.quality_of_service:
            self.puback(read.packet_id)
        elif read.type == SUBSCRIBE:
            self.suback(read)
        elif read.type == UNSUBSCRIBE:
            self.send(unsuback(read.packet_id))
        elif read.type == PINGREQ:
            self.send(pingresp())

    def answer_everything(self):
        while True:
            self.answer(self.read_packet())

    # --- ending

    def fin(self):
        """Close, so that the client sees the end of the stream and not a reset."""
        self._socket.shutdown(socket.SHUT_WR)
        self._socket.settimeout(_LINGER_S)
        try:
            while self._socket.recv(65536):
                pass
        except OSError:
            pass
        self.close()

    def rst(self):
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self._socket.close()

    def wake(self):
        """End a script that waits in another thread; a bare close() would leave it waiting."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class ScriptedBroker:
    """Runs ``script(connection)`` in a thread for each client; *connections* in order of arrival.

    A script that returns leaves its connection open and silent. `close` raises again in the test
    what a script has raised, EOFError and OSError apart: those are the client leaving.
    """

    def __init__(self, script, receive_buffer_bytes=None):
        self._script = script
        self._failures = []
        self._threads = []
        self.connections = []
        self._listener = socket.socket()
        if receive_buffer_bytes:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(16)
        self.port = self._listener.getsockname()[1]
        self._accepter = threading.Thread(target=self._accept, name="broker", daemon=True)
        self._accepter.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    @property
    def packets(self):
        """All packets of all connections, in order within each."""
        return [read for connection in self.connections for read in connection.packets]

    def close(self):
        self._stop_accepting()
        for connection in self.connections:
            connection.wake()
        for thread in self._threads:
            thread.join(_CLOSE_TIMEOUT_S)
            assert not thread.is_alive(), "a script did not end"
        for connection in self.connections:
            connection.close()
        if self._failures:
            raise self._failures.pop(0)

    def _stop_accepting(self):
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # else accept() goes on waiting
        except OSError:
            pass
        self._listener.close()
        self._accepter.join(_CLOSE_TIMEOUT_S)

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(sock, len(self.connections) + 1)
            self.connections.append(connection)
            thread = threading.Thread(target=self._run, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, connection):
        try:
            self._script(connection)
        except (EOFError, OSError):
            pass
        except BaseException as failure:  # pytest.fail() is no Exception
            self._failures.append(failure)
            connection.wake()
