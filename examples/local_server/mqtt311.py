# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""MQTT 3.1.1 as a server reads and writes it: bytes in, packets out, no I/O.

`Reader` takes bytes in any split and yields `Packet` objects; the functions below it build the
packets that a server sends. What ThingsBoard's decoder (netty's `MqttDecoder`) refuses is a
`ProtocolError` here. Chapter numbers are those of the OASIS standard, MQTT Version 3.1.1.
"""

import struct

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = range(8, 15)

PACKET_NAMES = (
    None,  # 0 is forbidden (2.2.1)
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
)

# NETTY_MAX_PAYLOAD_SIZE of ThingsBoard. Despite its name it limits the Remaining Length.
MAX_REMAINING_LENGTH = 65536

SUBACK_FAILURE = 0x80

_UINT16 = struct.Struct("!H")


class ProtocolError(Exception):
    """The bytes are not MQTT 3.1.1 as a client may send it; close the connection (4.8)."""


class Packet:
    """One packet from a client. Fields that its type does not have keep their defaults."""

    __slots__ = (
        "clean_session",
        "client_id",
        "dup",
        "keep_alive",
        "packet_id",
        "password",
        "payload",
        "qos",
        "size",
        "topic",
        "topic_filters",
        "type",
        "username",
    )

    def __init__(self, packet_type):
        self.type = packet_type
        self.size = 0  # its Remaining Length
        self.dup = False
        self.qos = 0
        self.packet_id = 0
        self.topic = ""
        self.payload = b""
        self.topic_filters = ()  # SUBSCRIBE: (filter, requested QoS); UNSUBSCRIBE: (filter, 0)
        self.client_id = ""
        self.username = None
        self.password = None
        self.keep_alive = 0  # seconds
        self.clean_session = True

    @property
    def name(self):
        """The name of the type, such as ``"PUBLISH"``."""
        return PACKET_NAMES[self.type]


class Reader:
    """Cut a stream of bytes into packets.

    :param int max_remaining_length: bytes; a packet with more is a `ProtocolError`
    """

    def __init__(self, max_remaining_length=MAX_REMAINING_LENGTH):
        self._buffer = bytearray()
        self._max_remaining_length = max_remaining_length

    def feed(self, data):
        """Add bytes, in any split."""
        self._buffer += data

    def packets(self):
        """Yield every `Packet` that is complete by now.

        :raises ProtocolError: after the packets before the malformed one
        """
        header = self._read_fixed_header()
        while header is not None:
            start, end = header
            first, body = self._buffer[0], bytes(self._buffer[start:end])
            del self._buffer[:end]
            yield decode(first, body)
            header = self._read_fixed_header()

    def _read_fixed_header(self):
        """Find where the body starts and ends; None while bytes are missing (2.2.3)."""
        buffer = self._buffer
        available = len(buffer)
        length = 0
        for position in range(1, 5):
            if position >= available:
                return None
            byte = buffer[position]
            length |= (byte & 0x7F) << 7 * (position - 1)
            if byte < 0x80:
                break
        else:
            raise ProtocolError("Remaining Length of more than four bytes")
        if length > self._max_remaining_length:
            raise ProtocolError("Remaining Length %d is over the limit" % length)
        end = position + 1 + length
        return None if available < end else (position + 1, end)


# --- decoding ---


def decode(first, body):
    """Build the `Packet` of a fixed header's first byte and a body.

    :raises ProtocolError: malformed, or a type that does not exist in MQTT 3.1.1
    """
    packet = Packet(first >> 4)
    packet.size = len(body)
    try:
        _DECODERS[packet.type](packet, first & 0x0F, body)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ProtocolError("malformed packet of type %d: %s" % (packet.type, error)) from error
    return packet


def _decode_publish(packet, flags, body):
    packet.dup = bool(flags & 8)
    packet.qos = flags >> 1 & 3
    (length,) = _UINT16.unpack_from(body)
    position = 2 + length
    if position > len(body):
        raise ProtocolError("the topic runs past the end of the PUBLISH")
    packet.topic = body[2:position].decode()
    if packet.qos == 3:
        raise ProtocolError("QoS 3")
    if "+" in packet.topic or "#" in packet.topic:
        raise ProtocolError("a wildcard in the topic of a PUBLISH")
    if packet.qos:
        packet.packet_id = _read_packet_id(body, position)
        position += 2
    packet.payload = body[position:]


def _decode_connect(packet, _flags, body):
    protocol, position = _read_text(body, 0)
    level, flags = body[position], body[position + 1]
    if (protocol, level) != ("MQTT", 4) or flags & 1:
        raise ProtocolError("not a CONNECT of MQTT 3.1.1")
    packet.clean_session = bool(flags & 2)
    (packet.keep_alive,) = _UINT16.unpack_from(body, position + 2)
    packet.client_id, position = _read_text(body, position + 4)
    if flags & 4:  # the will; ThingsBoard ignores it
        _, position = _read_text(body, position)
        _, position = _read_binary(body, position)
    if flags & 0x80:
        packet.username, position = _read_text(body, position)
    # A password without a user name is against 3.1.2.9, but ThingsBoard takes and answers it.
    if flags & 0x40:
        packet.password, position = _read_binary(body, position)


def _decode_subscribe(packet, flags, body):
    packet.packet_id = _read_filters_start(flags, body)
    position, found = 2, []
    while position < len(body):
        topic_filter, position = _read_text(body, position)
        if body[position] > 2:
            raise ProtocolError("SUBSCRIBE asks for QoS %d" % body[position])
        found.append((topic_filter, body[position]))
        position += 1
    packet.topic_filters = _check_filters(found)


def _decode_unsubscribe(packet, flags, body):
    packet.packet_id = _read_filters_start(flags, body)
    position, found = 2, []
    while position < len(body):
        topic_filter, position = _read_text(body, position)
        found.append((topic_filter, 0))
    packet.topic_filters = _check_filters(found)


def _decode_acknowledgement(packet, _flags, body):
    # No check for zero: the server's own 65536th PUBLISH has packet id 0, and is acknowledged.
    (packet.packet_id,) = _UINT16.unpack_from(body)


def _decode_nothing(_packet, _flags, _body):
    """PINGREQ and DISCONNECT have no body; what else comes here is ignored by the server."""


def _refuse_type(packet, _flags, _body):
    raise ProtocolError("packet type %d" % packet.type)


_DECODERS = (
    _refuse_type,
    _decode_connect,
    _decode_nothing,  # CONNACK
    _decode_publish,
    _decode_acknowledgement,  # PUBACK
    _decode_acknowledgement,  # PUBREC
    _decode_acknowledgement,  # PUBREL
    _decode_acknowledgement,  # PUBCOMP
    _decode_subscribe,
    _decode_nothing,  # SUBACK
    _decode_unsubscribe,
    _decode_nothing,  # UNSUBACK
    _decode_nothing,  # PINGREQ
    _decode_nothing,  # PINGRESP
    _decode_nothing,  # DISCONNECT
    _refuse_type,  # 15 is AUTH of MQTT 5
)


def _read_filters_start(flags, body):
    if flags != 2:
        raise ProtocolError("reserved flags of SUBSCRIBE or UNSUBSCRIBE (3.8.1)")
    return _read_packet_id(body, 0)


def _check_filters(found):
    if not found:
        raise ProtocolError("no topic filter (3.8.3)")
    return tuple(found)


def _read_packet_id(body, position):
    (packet_id,) = _UINT16.unpack_from(body, position)
    if not packet_id:
        raise ProtocolError("packet id 0")
    return packet_id


def _read_binary(body, position):
    (length,) = _UINT16.unpack_from(body, position)
    start, end = position + 2, position + 2 + length
    if end > len(body):
        raise ProtocolError("a field runs past the end of the packet")
    return body[start:end], end


def _read_text(body, position):
    raw, end = _read_binary(body, position)
    return raw.decode(), end


# --- encoding ---


def encode(packet_type, flags, body):
    """Put a fixed header before *body*."""
    head, length = bytearray((packet_type << 4 | flags,)), len(body)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + body


def connack(return_code, session_present):
    """CONNACK; *session_present* is a bool."""
    return encode(CONNACK, 0, bytes((session_present, return_code)))


def publish(topic, payload, qos, packet_id):
    """PUBLISH with DUP 0 and RETAIN 0; *packet_id* is left out at QoS 0."""
    name = topic.encode()
    number = _UINT16.pack(packet_id) if qos else b""
    return encode(PUBLISH, qos << 1, _UINT16.pack(len(name)) + name + number + payload)


def puback(packet_id):
    """PUBACK."""
    return b"\x40\x02" + _UINT16.pack(packet_id)


def suback(packet_id, return_codes):
    """SUBACK; *return_codes* has a granted QoS or `SUBACK_FAILURE` for each topic filter."""
    return encode(SUBACK, 0, _UINT16.pack(packet_id) + bytes(return_codes))


def unsuback(packet_id):
    """UNSUBACK."""
    return b"\xb0\x02" + _UINT16.pack(packet_id)


def pingresp():
    """PINGRESP."""
    return b"\xd0\x00"
