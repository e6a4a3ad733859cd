# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The codec of the stand-in, by hand-written bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_server import mqtt311

CONNECT = b"\x10\x1c\x00\x04MQTT\x04\xc2\x00\x3c\x00\x04unit\x00\x04user\x00\x04pass"
PUBLISH_QOS1 = b"\x3a\x0b\x00\x04a/bc\x00\x0ahey"
SUBSCRIBE = b"\x82\x0b\x00\x07\x00\x01a\x02\x00\x02b/\x00"
UNSUBSCRIBE = b"\xa2\x05\x00\x08\x00\x01a"
PUBACK = b"\x40\x02\x12\x34"
PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"
STREAM = CONNECT + SUBSCRIBE + PUBLISH_QOS1 + PUBACK + UNSUBSCRIBE + PINGREQ + DISCONNECT

MALFORMED = {
    "type 0": b"\x00\x00",
    "type 15, which is AUTH of MQTT 5": b"\xf0\x00",
    "five bytes of Remaining Length": b"\xc0\x80\x80\x80\x80\x00",
    "CONNECT of MQTT 5": b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00",
    "CONNECT of MQTT 3.1": b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a",
    "CONNECT with the reserved flag": b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x3c\x00\x00",
    "CONNECT that ends early": b"\x10\x08\x00\x04MQTT\x04\x02",
    "a user name that runs past the end": b"\x10\x0f\x00\x04MQTT\x04\x82\x00\x3c\x00\x00\x00\x09a",
    "QoS 3": b"\x36\x05\x00\x01a\x00\x01",
    "PUBLISH with +": b"\x30\x05\x00\x03a/+",
    "PUBLISH with #": b"\x30\x03\x00\x01#",
    "PUBLISH with packet id 0": b"\x32\x05\x00\x01a\x00\x00",
    "PUBLISH without packet id": b"\x32\x03\x00\x01a",
    "a topic that runs past the end": b"\x30\x03\x00\x09a",
    "a topic that is not UTF-8": b"\x30\x03\x00\x01\xff",
    "an empty PUBLISH": b"\x30\x00",
    "SUBSCRIBE with wrong flags": b"\x80\x06\x00\x01\x00\x01a\x00",
    "SUBSCRIBE with packet id 0": b"\x82\x06\x00\x00\x00\x01a\x00",
    "SUBSCRIBE to nothing": b"\x82\x02\x00\x01",
    "SUBSCRIBE without QoS": b"\x82\x05\x00\x01\x00\x01a",
    "SUBSCRIBE for QoS 3": b"\x82\x06\x00\x01\x00\x01a\x03",
    "UNSUBSCRIBE from nothing": b"\xa2\x02\x00\x01",
    "PUBACK that ends early": b"\x40\x01\x00",
}


def read(*pieces):
    reader = mqtt311.Reader()
    packets = []
    for piece in pieces:
        reader.feed(piece)
        packets.extend(reader.packets())
    return packets


def fields(packet):
    return tuple(getattr(packet, name) for name in packet.__slots__)


def test_connect_brings_every_field():
    (packet,) = read(CONNECT)
    assert packet.name == "CONNECT"
    assert (packet.client_id, packet.username, packet.password) == ("unit", "user", b"pass")
    assert (packet.keep_alive, packet.clean_session) == (60, True)


def test_connect_skips_the_will():
    will = b"\x00\x01t\x00\x02no"
    body = b"\x00\x04MQTT\x04\x84\x00\x00\x00\x00" + will + b"\x00\x01u"
    (packet,) = read(bytes((0x10, len(body))) + body)
    assert (packet.username, packet.password, packet.clean_session) == ("u", None, False)


def test_connect_may_have_a_password_alone():
    (packet,) = read(b"\x10\x10\x00\x04MQTT\x04\x42\x00\x00\x00\x00\x00\x02pw")
    assert (packet.username, packet.password) == (None, b"pw")


def test_publish_at_qos_1_has_a_packet_id():
    (packet,) = read(PUBLISH_QOS1)
    assert (packet.topic, packet.packet_id, packet.payload) == ("a/bc", 10, b"hey")
    assert (packet.qos, packet.dup) == (1, True)


def test_publish_at_qos_0_has_none():
    (packet,) = read(b"\x30\x05\x00\x01ahi")
    assert (packet.packet_id, packet.payload, packet.qos, packet.dup) == (0, b"hi", 0, False)


def test_subscribe_and_unsubscribe_list_their_filters():
    subscribe, unsubscribe = read(SUBSCRIBE, UNSUBSCRIBE)
    assert (subscribe.packet_id, subscribe.topic_filters) == (7, (("a", 2), ("b/", 0)))
    assert (unsubscribe.packet_id, unsubscribe.topic_filters) == (8, (("a", 0),))


def test_puback_of_packet_id_0_is_allowed():
    (packet,) = read(b"\x40\x02\x00\x00")
    assert packet.packet_id == 0


@pytest.mark.parametrize("split", range(1, len(STREAM)))
def test_a_split_anywhere_changes_nothing(split):
    whole = [fields(packet) for packet in read(STREAM)]
    assert [fields(packet) for packet in read(STREAM[:split], STREAM[split:])] == whole


def test_byte_by_byte_changes_nothing():
    packets = read(*(STREAM[at : at + 1] for at in range(len(STREAM))))
    assert [packet.name for packet in packets] == [
        "CONNECT",
        "SUBSCRIBE",
        "PUBLISH",
        "PUBACK",
        "UNSUBSCRIBE",
        "PINGREQ",
        "DISCONNECT",
    ]


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed_is_a_protocol_error(data):
    with pytest.raises(mqtt311.ProtocolError):
        read(data)


def test_packets_before_a_malformed_one_are_still_read():
    reader = mqtt311.Reader()
    reader.feed(PINGREQ + b"\x00\x00")
    packets = reader.packets()
    assert next(packets).name == "PINGREQ"
    with pytest.raises(mqtt311.ProtocolError):
        next(packets)


def test_the_limit_is_on_the_remaining_length():
    largest = b"\x30\x80\x80\x04" + b"\x00\x01a" + bytes(65533)
    (packet,) = read(largest)
    assert len(packet.payload) == 65533
    with pytest.raises(mqtt311.ProtocolError):
        read(b"\x30\x81\x80\x04")  # the header alone is enough


@given(st.lists(st.binary(max_size=40)))
@settings(max_examples=300, database=None, derandomize=True, deadline=None)
def test_any_bytes_raise_nothing_but_a_protocol_error(pieces):
    try:
        read(*pieces)
    except mqtt311.ProtocolError:
        pass


@given(st.integers(1, 14), st.integers(0, 15), st.binary(max_size=60))
@settings(max_examples=500, database=None, derandomize=True, deadline=None)
def test_any_body_raises_nothing_but_a_protocol_error(packet_type, flags, body):
    try:
        read(bytes((packet_type << 4 | flags, len(body))) + body)
    except mqtt311.ProtocolError:
        pass


@pytest.mark.parametrize(
    ("length", "header"),
    (
        (0, b"\x30\x00"),
        (127, b"\x30\x7f"),
        (128, b"\x30\x80\x01"),
        (16383, b"\x30\xff\x7f"),
        (16384, b"\x30\x80\x80\x01"),
        (2097152, b"\x30\x80\x80\x80\x01"),
    ),
)
def test_remaining_length_is_encoded_as_the_standard_shows(length, header):
    encoded = mqtt311.encode(mqtt311.PUBLISH, 0, bytes(length))
    assert encoded[: len(header)] == header
    assert len(encoded) == len(header) + length


def test_what_the_server_sends_is_encoded_as_the_standard_shows():
    assert mqtt311.connack(5, session_present=False) == b"\x20\x02\x00\x05"
    assert mqtt311.connack(0, session_present=True) == b"\x20\x02\x01\x00"
    assert mqtt311.publish("a/b", b"hi", 0, 9) == b"\x30\x07\x00\x03a/bhi"
    assert mqtt311.publish("a/b", b"hi", 1, 9) == b"\x32\x09\x00\x03a/b\x00\x09hi"
    assert mqtt311.puback(0x1234) == b"\x40\x02\x12\x34"
    assert mqtt311.suback(7, (1, 0x80)) == b"\x90\x04\x00\x07\x01\x80"
    assert mqtt311.unsuback(8) == b"\xb0\x02\x00\x08"
    assert mqtt311.pingresp() == b"\xd0\x00"
