# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What a server may send, and what becomes of what it may not; and what a dropped client leaves.

Chapter numbers are those of the OASIS standard, MQTT Version 3.1.1.
"""

import gc
import tracemalloc
import weakref

import pytest
from adafruit_connection_manager import get_connection_manager
from adafruit_minimqtt.adafruit_minimqtt import MMQTTException

import tb_device_mqtt
from clients import ATTRIBUTES, RPC_REQUEST, LogNotes, Notes, new_client
from fakes import Clock, FakePool
from faults import scripted_broker as mqtt
from tb_device_mqtt import TBError
from world import CONNACK, World

FIRST_SUBSCRIBE = 0x8001  # packet id of the only SUBSCRIBE of a connection
TOPIC_65535 = "t" * 65535
SPLIT_BYTES = 700


@pytest.fixture
def clock():
    with Clock() as running:
        yield running


@pytest.fixture
def world(clock):
    """A client that listens to everything."""
    made = World(clock)
    made.listen("#")
    return made


def check_violation(world, words="protocol: packet 0x"):
    """The connection is over at once, with a reason, and the next one works after its pause."""
    world.settle(5)
    assert world.client.state == "waiting"
    assert type(world.client.last_error) is TBError
    assert str(world.client.last_error).startswith(words)
    assert world.messages == []
    lost_ms = world.clock.now_ms
    world.open_next()
    assert world.clock.now_ms - lost_ms > 400
    world.accept()
    world.socket.feed(mqtt.publish("a/b", b"well", 1, 9))
    world.settle(5)
    assert world.messages == [("a/b", b"well")]


# --- packets -------------------------------------------------------------------------------------

BAD_HEADERS = {  # sections 2.2.2 and 3.x.1; only what the fixed header shows has come
    **{"PUBACK, flags %d" % flags: bytes((0x40 | flags, 2)) for flags in (1, 2, 4, 8)},
    **{"SUBACK, flags %d" % flags: bytes((0x90 | flags, 3)) for flags in (1, 2, 4, 8)},
    **{"UNSUBACK, flags %d" % flags: bytes((0xB0 | flags, 2)) for flags in (1, 2, 4, 8)},
    **{"PINGRESP, flags %d" % flags: bytes((0xD0 | flags, 0)) for flags in (1, 2, 4, 8)},
    "PUBLISH, QoS 2": b"\x34\x09",
    "PUBLISH, QoS 3": b"\x36\x09",
    "PUBLISH, DUP at QoS 0": b"\x38\x09",
    "PUBLISH, endless length": b"\x30\xff\xff\xff\xff",
    "PUBACK, 1 byte": b"\x40\x01",
    "PUBACK, 3 bytes": b"\x40\x03",
    "PUBACK, 200 bytes": b"\x40\xc8\x01",
    "UNSUBACK, 0 bytes": b"\xb0\x00",
    "UNSUBACK, 3 bytes": b"\xb0\x03",
    "PINGRESP, 1 byte": b"\xd0\x01",
    "SUBACK, 2 bytes": b"\x90\x02",
    "PUBREC": b"\x50\x02",
    "PINGREQ": b"\xc0\x00",
    "type 0": b"\x00\x00",
    "type 15": b"\xf0\x00",
}

BAD_PACKETS = {
    "no topic": mqtt.publish("", b"x"),
    "topic of +": mqtt.publish("a/+", b"x"),
    "topic of an RPC with +": mqtt.publish(RPC_REQUEST + "+5", b'{"method":"m"}', 1),
    "topic of #": mqtt.publish("#", b"x", 1),
    "topic with NUL": mqtt.publish("a\0b", b"x"),
    "topic that is no UTF-8": mqtt.publish(b"a/\xff", b"x"),
    "topic cut within a character": mqtt.publish("\u20ac".encode()[:2], b"x"),
    "topic longer than its packet": mqtt.packet(0x30, b"\x00\x09short"),
    "long topic longer than its packet": mqtt.packet(0x32, b"\xff\xff" + b"t" * 3000),
    "long topic without packet id": mqtt.packet(0x32, b"\x10\x00" + b"t" * 4096 + b"\x01"),
    "no packet id": mqtt.packet(0x32, b"\x00\x03a/b\x01"),
    "packet id 0 first": mqtt.publish("a/b", b"x", 1, 0),
    "PUBACK of 0": mqtt.puback(0),
    "SUBACK of 0": mqtt.suback(0),
    "UNSUBACK of 0": mqtt.unsuback(0),
    "SUBACK, two codes for one topic": mqtt.suback(FIRST_SUBSCRIBE, (1, 1)),
    "SUBACK, code 3": mqtt.suback(FIRST_SUBSCRIBE, (3,)),
    "SUBACK, code 0x81": mqtt.suback(FIRST_SUBSCRIBE, (0x81,)),
    "UNSUBACK of a SUBSCRIBE": mqtt.unsuback(FIRST_SUBSCRIBE),
    "PUBACK of a SUBSCRIBE": mqtt.puback(FIRST_SUBSCRIBE),
}


@pytest.mark.parametrize(
    "data", (BAD_HEADERS | BAD_PACKETS).values(), ids=BAD_HEADERS | BAD_PACKETS
)
def test_what_a_server_may_not_send_ends_the_connection_at_once(world, data):
    world.go_online()
    world.socket.feed(data)
    check_violation(world)


@pytest.mark.parametrize("kind", ("suback", "unsuback"))
def test_only_puback_acknowledges_a_message(world, kind):
    world.go_online()
    world.client.send_telemetry({"a": 1})
    (sent,) = world.sent_of(mqtt.PUBLISH)
    world.socket.feed(getattr(mqtt, kind)(sent.packet_id))
    check_violation(world)
    assert world.acknowledged == []
    assert world.client.pending_messages_count == 1


def test_only_unsuback_acknowledges_an_unsubscribe(world):
    world.go_online()
    world.client.unsubscribe("#")
    (sent,) = world.sent_of(mqtt.UNSUBSCRIBE)
    world.socket.feed(mqtt.suback(sent.packet_id))
    world.run_until_state("waiting")
    world.go_online()
    world.client.subscribe("a", print)
    world.client.unsubscribe("a")
    (sent,) = world.sent_of(mqtt.UNSUBSCRIBE)
    world.socket.feed(mqtt.unsuback(sent.packet_id))
    world.settle()
    assert world.client.connected
    assert not world.client._link._awaited.get(sent.packet_id)


@pytest.mark.parametrize("code", (0, 1, 2))
def test_a_suback_may_grant_any_quality_of_service(world, code):
    world.go_online()
    world.socket.feed(mqtt.suback(FIRST_SUBSCRIBE, (code,)))
    world.settle()
    assert world.client.connected
    assert world.client.stats["refused_subscriptions"] == 0


BAD_CONNACKS = {
    "flags of the packet": b"\x21\x02",
    "1 byte": b"\x20\x01",
    "3 bytes": b"\x20\x03",
    "reserved flag 1": b"\x20\x02\x02\x00",
    "reserved flag 7": b"\x20\x02\x80\x00",
}


@pytest.mark.parametrize("data", BAD_CONNACKS.values(), ids=BAD_CONNACKS)
def test_a_connack_that_is_none_ends_the_attempt_at_once(world, data):
    world.open()
    world.socket.feed(data)
    check_violation(world)


@pytest.mark.parametrize("is_online", (False, True))
def test_http_is_no_puback_to_wait_for(world, is_online):
    world.open()
    if is_online:
        world.accept()
    world.socket.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    check_violation(world, "The reply was not MQTT. Is this the web (HTTP) port?")


@pytest.mark.parametrize("last", (65535, 65530))
def test_packet_id_0_comes_from_a_server_that_counts_past_65535(world, last):
    """ThingsBoard counts its messages of QoS 0, too: the last ids may not be seen."""
    world.go_online()
    for packet_id in (1, last, 0, 1):
        world.socket.feed(mqtt.publish("a/b", b"", 1, packet_id))
        world.socket.feed(mqtt.publish("a/b", b""))
    world.settle()
    assert world.client.connected
    assert [packet.packet_id for packet in world.sent_of(mqtt.PUBACK)] == [1, last, 0, 1]
    world.socket.feed(mqtt.publish("a/b", b"", 1, 0))
    world.run_until_state("waiting")


def test_the_next_connection_counts_anew(world):
    world.go_online()
    world.socket.feed(mqtt.publish("a/b", b"", 1, 65535))
    world.settle()
    world.socket.end()
    world.run_until_state("waiting")
    world.messages.clear()
    world.open_next()
    world.accept()
    world.socket.feed(mqtt.publish("a/b", b"", 1, 0))
    check_violation(world)


# --- long topics and long texts ------------------------------------------------------------------


@pytest.mark.parametrize("piece_bytes", (1, SPLIT_BYTES, 100000))
@pytest.mark.parametrize("quality_of_service", (0, 1))
@pytest.mark.parametrize("payload", (b"", b"x" * 30, b"x" * 40000))
def test_a_message_with_a_long_topic_goes_by_and_is_acknowledged(
    world, piece_bytes, quality_of_service, payload
):
    world.go_online()
    data = mqtt.publish(TOPIC_65535, payload, quality_of_service, 7)
    data += mqtt.publish("a/b", b"next", 1, 8)
    for start in range(0, len(data), piece_bytes):
        world.socket.feed(data[start : start + piece_bytes])
    world.run_until(lambda: world.messages, seconds=1000, ms=1)
    assert world.messages == [("a/b", b"next")]
    assert world.client.stats["oversize"] == 1
    acknowledged = [packet.packet_id for packet in world.sent_of(mqtt.PUBACK)]
    assert acknowledged == ([7, 8] if quality_of_service else [8])
    assert world.client.connected


def test_a_long_topic_is_not_buffered(world):
    world.go_online()
    data = mqtt.publish(TOPIC_65535, b"", 1)
    tracemalloc.start()
    try:
        for start in range(0, len(data) - 1, SPLIT_BYTES):
            world.socket.feed(data[start : start + SPLIT_BYTES])
            world.poll()
        taken_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken_bytes < 20000


def test_a_topic_that_fits_into_the_buffer_comes(world):
    world.go_online()
    world.socket.feed(mqtt.publish("t" * 1000, b"x" * 1000, 1))
    world.settle()
    assert world.messages == [("t" * 1000, b"x" * 1000)]


def test_what_a_server_says_is_logged_cut_and_escaped(clock):
    logger = LogNotes()
    world = World(clock, logger=logger)
    world.go_online()
    world.socket.feed(mqtt.publish("\x1b[2J\r\n" + "t" * 900, b""))
    world.socket.feed(mqtt.publish("v1/devices/me/rpc/response/" + "\x1b" * 900, b""))
    world.client.rpc("method")(print)
    world.socket.feed(mqtt.publish(RPC_REQUEST + "\x1b" * 900, b"{}"))
    world.settle()
    lines = logger.text.splitlines()
    assert world.client.stats["unexpected"] == len(lines) == 3
    assert all(len(line) < 600 and line.isprintable() for line in lines), lines


# --- request ids ---------------------------------------------------------------------------------

NO_NUMBERS = (" 5", "5 ", "0x5", "5.0", "-1", "5_0", "", "\u0665", "\u00b2", "5" * 30, "5/5")


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_an_rpc_without_a_number_is_ignored_and_counted(world, text):
    handler = Notes("ok")
    world.client.set_server_side_rpc_request_handler(handler)
    world.client.unsubscribe("#")  # else it is no unexpected one
    world.go_online()
    world.socket.feed(mqtt.publish(RPC_REQUEST + text, b'{"method":"m"}'))
    world.settle()
    assert handler.calls == []
    assert world.client.stats["unexpected"] == 1
    assert world.client.connected


@pytest.mark.parametrize("text", ("0", "5", "2147483647"))
def test_an_rpc_with_a_number_is_answered(world, text):
    world.client.rpc("m")(lambda _params: "ok")
    world.go_online()
    world.socket.feed(mqtt.publish(RPC_REQUEST + text, b'{"method":"m"}'))
    world.settle()
    (reply,) = world.sent_of(mqtt.PUBLISH)
    assert reply.topic == "v1/devices/me/rpc/response/" + text


@pytest.mark.parametrize("change", (" %d", "%d ", "0x%d", "%d.0", "-%d", "0%d", "%d/"))
def test_an_answer_has_the_very_number_of_its_request(world, change):
    answered = Notes()
    world.client.unsubscribe("#")
    world.go_online()
    number = world.client.request_attributes(["a"], callback=answered)
    for text in (change % number, str(number)):
        world.socket.feed(mqtt.publish(ATTRIBUTES + "/response/" + text, b'{"client":{}}'))
    world.settle()
    assert answered.calls == [({"client": {}}, None)]
    assert world.client.stats["unexpected"] == 1


# --- shared attributes ---------------------------------------------------------------------------


def push(world, text):
    world.socket.feed(mqtt.publish(ATTRIBUTES, text.encode()))
    world.settle(20)


@pytest.fixture
def mirror(clock):
    """A `World` whose client uses `shared` and is told each change, in *changes*."""
    made = World(clock)
    made.changes = Notes()
    made.shared = made.client.shared
    made.client.subscribe_to_all_attributes(made.changes)
    made.go_online()
    return made


def test_shared_keeps_256_keys_and_tells_once_that_there_are_more(mirror):
    for number in range(300):
        push(mirror, '{"k%d":%d}' % (number, number))
    assert len(mirror.shared) == 256
    assert mirror.shared["k255"] == 255 and "k256" not in mirror.shared
    assert mirror.client.stats["not_kept"] == 44
    assert len(mirror.changes.calls) == 300
    error = mirror.client.last_error
    assert isinstance(error, TBError) and "shared is full" in str(error)
    push(mirror, '{"one more":1}')
    assert mirror.client.last_error is error
    push(mirror, '{"deleted":["k1"]}')
    push(mirror, '{"one more":1}')
    assert mirror.shared["one more"] == 1 and len(mirror.shared) == 256


def test_shared_keeps_no_more_bytes_than_a_message_may_have(mirror):
    mirror.client.max_message_bytes = 1000
    push(mirror, '{"a":"%s"}' % ("x" * 600))
    push(mirror, '{"b":"%s"}' % ("x" * 600))
    assert list(mirror.shared) == ["a"]
    for _ in range(5):  # the same again takes no more room
        push(mirror, '{"a":"%s"}' % ("y" * 700))
    assert mirror.shared["a"] == "y" * 700
    push(mirror, '{"deleted":["a"]}')
    push(mirror, '{"b":"%s"}' % ("x" * 600))
    assert list(mirror.shared) == ["b"]
    assert mirror.client.stats["not_kept"] == 1


def test_a_value_that_does_not_fit_any_more_leaves_no_old_one_behind(mirror):
    mirror.client.max_message_bytes = 1000
    push(mirror, '{"a":1,"b":"%s"}' % ("x" * 700))
    push(mirror, '{"a":"%s"}' % ("x" * 400))
    assert "a" not in mirror.shared


def test_an_answer_is_bounded_as_pushes_are(mirror):
    mirror.settle()
    (request,) = mirror.sent_of(mqtt.PUBLISH)
    topic = request.topic.replace("request", "response")
    values = ",".join('"k%d":%d' % (number, number) for number in range(300))
    mirror.socket.feed(mqtt.publish(topic, b'{"shared":{%s}}' % values.encode()))
    mirror.settle()
    assert mirror.shared.is_known
    assert len(mirror.shared) == 256
    assert mirror.client.stats["not_kept"] == 44
    assert len(mirror.changes.firsts[0]) == 300


# --- what a dropped client leaves ----------------------------------------------------------------


def test_a_client_that_is_dropped_goes_offline(server, device):
    client = new_client(server)
    client.rpc("method")(print)
    client.connect()
    assert device.online
    gone = weakref.ref(client)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del client
        gc.collect()
    assert gone() is None
    assert device.wait(lambda d: not d.online)


def use_and_drop(server):
    client = new_client(server)
    client.connect()
    client.send_telemetry({"a": 1})
    client.disconnect()
    return weakref.ref(client)


def fail_and_drop(_server):
    """An attempt that failed: its error knows the client's frames."""
    pool = FakePool()
    pool.refuse = True
    client = tb_device_mqtt.TBDeviceMqttClient("server.test", socket_pool=pool)
    with pytest.raises(OSError, match="no server is listening"):
        client.connect()
    return weakref.ref(client)


def count_objects():
    """Of the library, MiniMQTT and ConnectionManager."""
    modules = [str(type(each).__module__) for each in gc.get_objects()]
    return sum(module.startswith(("tb_device_mqtt", "adafruit_")) for module in modules)


@pytest.mark.parametrize("use", (use_and_drop, fail_and_drop))
def test_a_client_that_was_used_leaves_nothing(server, device, use):
    for _ in range(3):  # what is kept for all clients together
        use(server)
    gc.collect()
    before = count_objects()
    gone = [use(server) for _ in range(50)]
    gc.collect()
    assert [each for each in gone if each() is not None] == []
    assert count_objects() <= before


def test_no_socket_stays_in_connection_managers_table(server, device):
    client = new_client(server)
    client.connect()
    assert get_connection_manager(tb_device_mqtt._pool).managed_socket_count == 0
    client.disconnect()


def test_an_attempt_that_breaks_off_blocks_no_other(clock, monkeypatch):
    """MiniMQTT leaves the socket in the table, which then has no place for the next one."""
    world, other = World(clock), World(clock)

    def fail(_standin, _data):
        raise RuntimeError("pystack exhausted")

    with monkeypatch.context() as patches:
        patches.setattr(tb_device_mqtt._StandIn, "send", fail)
        world.client.connect(timeout=0)
        with pytest.raises(RuntimeError, match="pystack"):
            world.run(1)
    other.go_online()
    world.run_until(lambda: len(world.pool.sockets) == 2)
    world.socket.feed(CONNACK)
    world.run_until_state("online")


@pytest.mark.parametrize("is_online", (False, True))
def test_a_will_comes_too_late_once_connect_was_sent(world, is_online):
    world.open()
    if is_online:
        world.accept()
    with pytest.raises(MMQTTException, match="connect"):
        world.client.will_set("a", "b")
