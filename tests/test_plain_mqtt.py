# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The plain MQTT underneath: publish, subscribe with wildcards, unsubscribe, the last will."""

import pytest
from adafruit_minimqtt.adafruit_minimqtt import MMQTTException

from clients import (
    ATTRIBUTES,
    RPC_REQUEST,
    RPC_RESPONSE,
    LogNotes,
    Notes,
    lose,
    new_client,
    offline_client,
    online_client,
    packets,
    subscribed,
)
from faults.scripted_broker import (
    CONNECT,
    PUBACK,
    PUBLISH,
    SUBSCRIBE,
    UNSUBSCRIBE,
    publish,
)
from helpers import run_for, run_until
from tb_device_mqtt import TBError

SOON_S = 0.1


@pytest.fixture
def free(broker):
    """A client that is connected to it."""
    with online_client(broker) as client:
        yield client


def of_type(broker, packet_type):
    return [packet for packet in broker.packets if packet.type == packet_type]


def granted(client, broker, *filters):
    """Poll until the broker has been asked for these topic filters."""

    def is_granted():
        asked = {name for packet in of_type(broker, SUBSCRIBE) for name, _ in packet.filters}
        return asked.issuperset(filters)

    run_until(client, is_granted)


# --- publish ---


@pytest.mark.parametrize(
    "payload, expected",
    [
        ("text", b"text"),
        ("Grüße 温度", "Grüße 温度".encode()),
        ("", b""),
        (b"\x00\xff raw", b"\x00\xff raw"),
        (bytearray(b"raw"), b"raw"),
        (memoryview(b"raw"), b"raw"),
        (3, b"3"),
        (-2.5, b"-2.5"),
        (None, b""),
    ],
    ids=repr,
)
def test_a_payload_arrives_as_bytes(client, device, payload, expected):
    message_id = client.publish("any/topic", payload)
    assert client.flush(5)
    assert device.messages == [("any/topic", expected, 1, False)]
    assert isinstance(message_id, int)


def test_what_is_published_does_not_change_with_its_buffer_afterwards(server, device):
    with offline_client(server) as client:
        buffer = bytearray(b"before")
        client.publish("any/topic", buffer)
        buffer[:] = b"after!"
        client.connect()
        assert client.flush(5)
    assert device.messages[0][1] == b"before"


@pytest.mark.parametrize("payload", [{"a": 1}, [1], {1}, object(), 1j, len])
def test_a_payload_of_another_kind_is_refused(client, payload):
    with pytest.raises(TypeError, match="payload"):
        client.publish("any/topic", payload)
    assert client.pending_messages_count == 0


def test_a_payload_above_the_limit_is_refused(client, device):
    with pytest.raises(ValueError, match=r"any/topic.*limit"):
        client.publish("any/topic", b"x" * 20000)
    assert client.pending_messages_count == 0
    client.publish("any/topic", b"x" * 2000)
    assert client.flush(5)
    assert len(device.messages) == device.connects == 1


def test_the_longest_payload_passes_through_a_server_with_its_limit_of_64_kb(server, device):
    topic = "🌡" * 255
    with online_client(server, queue_bytes=1 << 20) as client:
        client.max_message_bytes = 1 << 20
        with pytest.raises(ValueError, match="limit") as caught:
            client.publish(topic, b"x" * 65536)
        client.publish(topic, b"x" * int(str(caught.value).split()[-1]))
        assert client.flush(5)
    assert len(device.messages) == device.connects == 1


@pytest.mark.parametrize("topic", ["", "a/+/b", "#", "a/#", None, 3, b"raw", "x" * 65536])
def test_a_topic_that_can_not_be_published_to_is_refused(client, device, topic):
    with pytest.raises((TypeError, ValueError), match="topic"):
        client.publish(topic, "payload")
    assert client.pending_messages_count == 0


def test_a_topic_that_can_not_be_encoded_is_refused(client):
    with pytest.raises(ValueError, match="surrogates"):
        client.publish("half of a pair: \ud800", "payload")
    with pytest.raises(ValueError, match="surrogates"):
        client.subscribe("half of a pair: \ud800", print)
    assert client.pending_messages_count == 0


@pytest.mark.parametrize("topic", ["a/#/b", "a+", "+a/b", "a/b#", "##", "#/", "a/+#", "a\0b"])
@pytest.mark.parametrize("shape", [lambda topic: topic, lambda topic: ["a", (topic, 0)]])
def test_a_filter_that_mqtt_forbids_is_refused_at_the_call(broker, free, topic, shape):
    with pytest.raises(ValueError, match="topic must"):
        free.subscribe(shape(topic), Notes())
    with pytest.raises(ValueError, match="topic must"):
        free.unsubscribe([topic])
    free.subscribe("c", Notes())
    granted(free, broker, "c")
    assert [packet.filters for packet in of_type(broker, SUBSCRIBE)] == [[("c", 1)]]


@pytest.mark.parametrize(
    "topic", ["+", "#", "/", "a/", "+/+/#", "/#", "$share/g/a/+", "\ud7ff\ue000"]
)
def test_a_filter_that_mqtt_allows_passes(broker, free, topic):
    free.subscribe(topic, Notes())
    granted(free, broker, topic)


@pytest.mark.parametrize("topic", ["a\0b", "a/+", "a+", "#", "a#", "\udfff"])
def test_a_topic_that_mqtt_forbids_is_refused_at_the_call(client, topic):
    with pytest.raises(ValueError, match="topic must"):
        client.publish(topic, 1)
    with pytest.raises(ValueError, match="topic must"):
        client.will_set(topic, 1)
    assert client.pending_messages_count == 0


@pytest.mark.parametrize("topic", [5, None, b"a", "", [], [5], [["a"]], ("a", "b"), ()])
def test_what_is_no_filter_is_refused_by_name(client, topic):
    with pytest.raises((TypeError, ValueError), match=r"topic|quality_of_service"):
        client.subscribe(topic, print)
    if topic != ("a", "b"):
        with pytest.raises((TypeError, ValueError), match="topic"):
            client.unsubscribe(topic)


@pytest.mark.parametrize("quality_of_service", [0, 1, None])
def test_quality_of_service_is_that_of_the_call_or_else_of_the_client(
    client, device, quality_of_service
):
    client.on_publish = published = Notes()
    message_id = client.publish("any/topic", "payload", quality_of_service)
    run_until(client, lambda: published.calls and device.messages)
    assert device.messages[0][2] == (1 if quality_of_service is None else quality_of_service)
    assert published.calls == [(client, None, "any/topic", message_id)]


@pytest.mark.parametrize("quality_of_service", [2, -1, "0"])
def test_another_quality_of_service_is_refused(client, quality_of_service):
    with pytest.raises(ValueError, match="quality_of_service"):
        client.publish("any/topic", "payload", quality_of_service)
    with pytest.raises(ValueError, match="quality_of_service"):
        client.subscribe("any/topic", Notes(), quality_of_service)


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("quality_of_service", [0, 1])
def test_retain_is_told_to_the_server(broker, free, retain, quality_of_service):
    free.publish("any/topic", "payload", quality_of_service, retain)
    run_until(free, lambda: of_type(broker, PUBLISH))
    (packet,) = of_type(broker, PUBLISH)
    assert packet.flags == quality_of_service << 1 | retain


def test_what_was_published_before_connect_goes_out_after_it(server, device):
    with offline_client(server) as client:
        client.publish("any/topic", "one")
        client.publish("any/topic", "two", 0)
        client.connect()
        run_until(client, lambda: len(device.messages) == 2)
    assert [payload for _, payload, _, _ in device.messages] == [b"one", b"two"]


# --- subscribe ---


@pytest.mark.parametrize(
    "topic_filter, topic",
    [
        ("a/b", "a/b"),
        ("a/+", "a/b"),
        ("+/b", "a/b"),
        ("a/#", "a/b/c"),
        ("a/#", "a"),
        ("#", "a/b"),
        ("+/+/c", "a/b/c"),
        ("a/+/c/#", "a/b/c/d/e"),
        ("+", "a"),
        ("/+", "/a"),
        ("温度/+", "温度/é"),
    ],
)
def test_a_filter_takes_what_matches(broker, free, topic_filter, topic):
    notes = Notes()
    free.subscribe(topic_filter, notes)
    granted(free, broker, topic_filter)
    broker.connections[0].send(publish(topic, b"\x00raw\xff"))
    run_until(free, lambda: notes.calls)
    assert notes.calls == [(topic, b"\x00raw\xff")]
    assert type(notes.calls[0][1]) is bytes
    assert free.stats["unexpected"] == 0


@pytest.mark.parametrize(
    "topic_filter, topic",
    [
        ("a/b", "a/c"),
        ("a/+", "a"),
        ("a/+", "a/b/c"),
        ("+", "a/b"),
        ("a/#", "b"),
        ("a/+/c", "a/b/d"),
    ],
)
def test_a_filter_leaves_what_does_not_match(broker, free, topic_filter, topic):
    notes = Notes()
    free.subscribe(topic_filter, notes)
    granted(free, broker, topic_filter)
    broker.connections[0].send(publish(topic, b"raw"))
    run_until(free, lambda: free.stats["unexpected"] == 1)
    assert notes.calls == []


def test_each_filter_that_matches_is_told_once(broker, free):
    narrow, wide, all_of_it = Notes(), Notes(), Notes()
    free.subscribe("a/b", narrow)
    free.subscribe("a/+", wide)
    free.subscribe("#", all_of_it)
    granted(free, broker, "a/b", "a/+", "#")
    broker.connections[0].send(publish("a/b", b"1") + publish("a/c", b"2"))
    run_until(free, lambda: len(all_of_it.calls) == 2)
    assert narrow.calls == [("a/b", b"1")]
    assert wide.calls == all_of_it.calls == [("a/b", b"1"), ("a/c", b"2")]


def test_the_last_callback_of_a_filter_counts(broker, free):
    first, second = Notes(), Notes()
    free.subscribe("a/b", first)
    free.subscribe("a/b", second)
    granted(free, broker, "a/b")
    broker.connections[0].send(publish("a/b", b"1"))
    run_until(free, lambda: second.calls)
    assert first.calls == []


def test_a_callback_in_a_tuple_gets_its_context_behind(broker, free):
    notes = Notes()
    free.subscribe("a/b", (notes, "context"))
    granted(free, broker, "a/b")
    broker.connections[0].send(publish("a/b", b"1"))
    run_until(free, lambda: notes.calls)
    assert notes.calls == [("a/b", b"1", "context")]


@pytest.mark.parametrize("quality_of_service, expected", [(0, 0), (1, 1), (None, 1)])
def test_the_subscription_asks_for_its_quality_of_service(
    broker, free, quality_of_service, expected
):
    free.subscribe("a/b", Notes(), quality_of_service)
    granted(free, broker, "a/b")
    assert of_type(broker, SUBSCRIBE)[0].filters == [("a/b", expected)]


def test_a_message_of_quality_of_service_1_is_acknowledged_under_its_number(broker, free):
    notes = Notes()
    free.subscribe("a/b", notes)
    granted(free, broker, "a/b")
    broker.connections[0].send(publish("a/b", b"1", 1, 77) + publish("a/b", b"2", 0))
    run_until(free, lambda: len(notes.calls) == 2)
    run_until(free, lambda: of_type(broker, PUBACK))
    assert [packet.packet_id for packet in of_type(broker, PUBACK)] == [77]


def test_a_message_may_be_empty_and_may_be_long(broker, free):
    notes = Notes()
    free.subscribe("#", notes)
    granted(free, broker, "#")
    long = bytes(range(256)) * 60
    broker.connections[0].send(publish("a", b"", 1, 1) + publish("b", long, 1, 2))
    run_until(free, lambda: len(notes.calls) == 2)
    assert notes.calls == [("a", b""), ("b", long)]


def test_all_filters_are_subscribed_again_after_a_reconnect(broker, free):
    notes = Notes()
    free.subscribe("a/+", notes)
    free.subscribe("b/#", notes, 0)
    granted(free, broker, "a/+", "b/#")
    broker.connections[0].fin()
    run_until(free, lambda: len(broker.connections) == 2 and free.connected)
    run_until(free, lambda: broker.connections[1].packets[1:])
    assert broker.connections[1].packets[1].filters == [("a/+", 1), ("b/#", 0)]
    broker.connections[1].send(publish("a/x", b"1"))
    run_until(free, lambda: notes.calls)


def test_a_subscription_before_connect_goes_behind_connect(broker):
    notes = Notes()
    with offline_client(broker) as client:
        client.subscribe("a/b", notes)
        client.connect()
        granted(client, broker, "a/b")
        broker.connections[0].send(publish("a/b", b"1"))
        run_until(client, lambda: notes.calls)
    assert [packet.type for packet in broker.packets[:2]] == [CONNECT, SUBSCRIBE]


def test_a_refused_subscription_is_told_by_name_and_harms_nothing(server, device):
    logger = LogNotes()
    with online_client(server, logger=logger) as client:
        client.subscribe("not/of/thingsboard", Notes())
        run_until(client, lambda: client.stats["refused_subscriptions"] == 1)
        assert isinstance(client.last_error, TBError)
        assert "not/of/thingsboard" in str(client.last_error)
        assert "not/of/thingsboard" in logger.text
        client.send_telemetry({"a": 1})
        assert client.flush(5)
    assert device.connects == 1


def test_only_what_was_refused_is_told(server, device):
    with offline_client(server) as client:
        for topic in ("#", ATTRIBUTES, "another"):
            client.subscribe(topic, Notes())
        client.connect()
        run_until(client, lambda: client.stats["refused_subscriptions"] == 2)
        assert set(device.subscriptions) == {ATTRIBUTES}


@pytest.mark.parametrize("topic", ["", None, 3, b"raw", "x" * 65536])
def test_a_filter_that_can_not_be_is_refused(client, topic):
    with pytest.raises((TypeError, ValueError), match="topic"):
        client.subscribe(topic, Notes())


@pytest.mark.parametrize("callback", [None, 3, "text", (3, 4)])
def test_a_subscription_without_callback_is_refused(server, client, device, callback):
    with pytest.raises(TypeError, match="callback"):
        client.subscribe("a/b", callback)
    client.send_telemetry({"a": 1})
    assert client.flush(5)
    assert "SUBSCRIBE" not in packets(server)


def test_a_callback_that_raises_is_counted_and_keeps_nobody_from_being_told(broker, free):
    notes = Notes()
    free.subscribe("a/b", Notes(RuntimeError("mine")))
    free.subscribe("a/+", notes)
    granted(free, broker, "a/b", "a/+")
    broker.connections[0].send(publish("a/b", b"1") + publish("a/b", b"2"))
    run_until(free, lambda: len(notes.calls) == 2)
    assert free.stats["handler_errors"] == 2
    assert str(free.last_error) == "mine"


def test_a_callback_may_publish_subscribe_and_unsubscribe(broker, free):
    second = Notes()

    def first(topic, payload):
        free.publish("answer", payload)
        free.subscribe("c/d", second)
        free.unsubscribe("a/b")

    free.subscribe("a/b", first)
    granted(free, broker, "a/b")
    broker.connections[0].send(publish("a/b", b"1"))
    granted(free, broker, "c/d")
    broker.connections[0].send(publish("c/d", b"2"))
    run_until(free, lambda: second.calls and of_type(broker, PUBLISH))
    assert [packet.payload for packet in of_type(broker, PUBLISH)] == [b"1"]
    assert free.stats["handler_errors"] == 0


# --- lists, message ids, what was granted, flags ---


def test_a_list_is_subscribed_and_unsubscribed_in_one_packet_each(broker, free):
    notes = Notes()
    first = free.subscribe([("a/+", 0), "b", ("c",)], notes)
    granted(free, broker, "a/+", "b", "c")
    broker.connections[0].send(publish("a/x", b"1") + publish("b", b"2") + publish("c", b"3"))
    run_until(free, lambda: len(notes.calls) == 3)
    second = free.unsubscribe(["a/+", "b"])
    run_until(free, lambda: of_type(broker, UNSUBSCRIBE))
    (subscribe,), (unsubscribe,) = of_type(broker, SUBSCRIBE), of_type(broker, UNSUBSCRIBE)
    assert subscribe.filters == [("a/+", 0), ("b", 1), ("c", 1)]
    assert [subscribe.packet_id, unsubscribe.packet_id] == [first, second]
    broker.connections[0].send(publish("a/x", b"4") + publish("c", b"5"))
    run_until(free, lambda: len(notes.calls) == 4)
    assert notes.calls[-1] == ("c", b"5")


def test_a_filter_with_its_quality_of_service_may_stand_alone(broker, free):
    free.subscribe(("a", 0), Notes())
    granted(free, broker, "a")
    assert of_type(broker, SUBSCRIBE)[0].filters == [("a", 0)]


def test_each_subscription_has_a_message_id_of_its_own(free):
    ids = [free.subscribe("a/%d" % number, Notes()) for number in range(3)]
    assert len(set(ids)) == 3


def test_while_offline_the_message_id_is_that_of_the_packet_to_come(broker):
    with offline_client(broker) as client:
        message_id = client.subscribe("a", Notes())
        client.connect()
        granted(client, broker, "a")
    assert of_type(broker, SUBSCRIBE)[0].packet_id == message_id


def test_on_subscribe_is_told_what_was_granted_and_what_was_refused(server, device):
    with offline_client(server) as client:
        client.on_subscribe = told = Notes()
        client.user_data = data = object()
        client.subscribe(
            [("not/of/thingsboard", 1), (ATTRIBUTES, 0), (RPC_REQUEST + "+", 1)], print
        )
        client.connect()
        run_until(client, lambda: len(told.calls) == 3)
        assert sorted(told.calls, key=lambda call: call[2]) == [
            (client, data, "not/of/thingsboard", 0x80),
            (client, data, ATTRIBUTES, 0),
            (client, data, RPC_REQUEST + "+", 1),
        ]
        lose(client, device)
        run_until(client, lambda: len(told.calls) == 6)


@pytest.mark.parametrize("quality_of_service, duplicate, retain", [(0, 0, 1), (1, 1, 0), (1, 0, 1)])
def test_a_handler_that_asks_learns_the_flags_of_its_message(
    broker, free, quality_of_service, duplicate, retain
):
    flags = []
    free.subscribe("a", lambda topic, payload: flags.append(free.message_flags))
    granted(free, broker, "a")
    broker.connections[0].send(
        publish("a", b"1", quality_of_service, 1, duplicate, retain) + publish("a", b"2")
    )
    run_until(free, lambda: len(flags) == 2)
    assert flags == [duplicate << 3 | quality_of_service << 1 | retain, 0]


# --- beside what the client itself listens to ---


def test_a_plain_subscription_and_the_sections_of_the_client_both_hear(client, device):
    plain, changed, rpc = Notes(), Notes(), Notes()
    client.subscribe(ATTRIBUTES, plain)
    client.subscribe_to_attribute("interval", changed)
    client.subscribe(RPC_REQUEST + "+", rpc)
    client.rpc("method")(Notes("ok"))
    subscribed(client, device, RPC_REQUEST + "+")
    device.push_attributes({"interval": 5})
    reply = device.call_rpc("method")
    run_until(client, lambda: changed.calls and reply.done())
    assert plain.calls == [(ATTRIBUTES, b'{"interval":5}')]
    assert rpc.calls == [(RPC_REQUEST + "0", b'{"method":"method","params":null}')]
    assert reply.result() == "ok"


def test_who_takes_rpcs_by_a_plain_subscription_answers_them_alone(client, device):
    rpc = Notes()
    client.subscribe(RPC_REQUEST + "+", rpc)
    subscribed(client, device, RPC_REQUEST + "+")
    reply = device.call_rpc("method")
    run_until(client, lambda: rpc.calls)
    run_for(client, SOON_S)
    assert not reply.done()
    client.publish(RPC_RESPONSE + "0", '"done"')
    run_until(client, reply.done)
    assert reply.result() == "done"


def test_unsubscribe_leaves_the_sections_of_the_client_their_subscription(client, device):
    changed = Notes()
    client.subscribe_to_attribute("interval", changed)
    client.subscribe(ATTRIBUTES, Notes())
    client.unsubscribe(ATTRIBUTES)
    client.send_telemetry({"a": 1})
    assert client.flush(5)
    device.push_attributes({"interval": 5})
    run_until(client, lambda: changed.calls, timeout=2)


def test_the_sections_of_the_client_leave_a_plain_subscription_alone(client, device):
    plain = Notes()
    client.subscribe(ATTRIBUTES, plain)
    client.subscribe_to_attribute("interval", Notes())
    client.unsubscribe_from_attribute("*")
    client.send_telemetry({"a": 1})
    assert client.flush(5)
    device.push_attributes({"interval": 5})
    run_until(client, lambda: plain.calls, timeout=2)


# --- unsubscribe ---


def test_after_unsubscribe_nothing_is_told(broker, free):
    notes, other = Notes(), Notes()
    free.subscribe("a/b", notes)
    free.subscribe("a/+", other)
    granted(free, broker, "a/b", "a/+")
    free.unsubscribe("a/b")
    broker.connections[0].send(publish("a/b", b"1"))
    run_until(free, lambda: other.calls)
    assert notes.calls == []


def test_unsubscribe_is_told_to_the_server(server, client, device):
    client.subscribe(ATTRIBUTES, Notes())
    subscribed(client, device, ATTRIBUTES)
    client.unsubscribe(ATTRIBUTES)
    run_until(client, lambda: not device.subscriptions)
    lose(client, device)
    run_until(client, lambda: client.connected)
    run_for(client, SOON_S)
    assert not device.subscriptions


@pytest.mark.parametrize("topic", ["never/subscribed", "a", "a/b/c", "+", "#"])
def test_an_unknown_topic_is_no_error(broker, free, topic):
    notes = Notes()
    free.unsubscribe(topic)
    free.subscribe("a/b", notes)
    free.unsubscribe(topic)
    granted(free, broker, "a/b")
    broker.connections[0].send(publish("a/b", b"1"))
    run_until(free, lambda: notes.calls)


def test_unsubscribe_twice_and_before_connect_is_no_error(server, device):
    with offline_client(server) as client:
        client.subscribe(ATTRIBUTES, Notes())
        client.unsubscribe(ATTRIBUTES)
        client.unsubscribe(ATTRIBUTES)
        client.connect()
        client.send_telemetry({"a": 1})
        assert client.flush(5)
    assert "SUBSCRIBE" not in packets(server)


# --- the last will ---


@pytest.mark.parametrize("quality_of_service", [0, 1])
@pytest.mark.parametrize("retain", [False, True])
def test_the_last_will_is_told_in_connect(broker, quality_of_service, retain):
    client = new_client(broker)
    client.will_set("last/will", "goodbye", quality_of_service, retain)
    with client:
        pass
    (packet,) = of_type(broker, CONNECT)
    assert packet.credentials.will_topic == "last/will"
    assert packet.credentials.will_payload == b"goodbye"
    flags = packet.body[7]
    assert flags & 0b00111000 == retain << 5 | quality_of_service << 3


def test_without_a_last_will_connect_tells_none(broker, free):
    (packet,) = of_type(broker, CONNECT)
    assert packet.credentials.will_topic is None


def test_a_last_will_after_connect_is_refused(client):
    with pytest.raises(MMQTTException, match="connect"):
        client.will_set("last/will", "goodbye")
    client.disconnect()
    client.will_set("last/will", "goodbye")
    assert client.connect()


@pytest.mark.parametrize(
    "arguments, named",
    [
        (("a/+", "x"), "topic"),
        (("", "x"), "topic"),
        ((None, "x"), "topic"),
        (("a", {}), "payload"),
        (("a", "x", 2), "quality_of_service"),
        (("a\0", "x"), "topic"),
        (("a", "x\0"), "payload"),
        (("a", "\ud800"), "payload"),
        (("a", b"\xff"), "payload"),
        (("a", "é" * 32768), "payload"),
    ],
)
def test_a_last_will_that_can_not_be_is_refused(server, device, arguments, named):
    client = new_client(server)
    with pytest.raises((TypeError, ValueError), match=named):
        client.will_set(*arguments)
    assert client.connect()
    client.disconnect()
