# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""An MQTT class that keeps its socket to itself: a double, or a MiniMQTT that was rewritten."""

import errno
import json

import pytest
from adafruit_minimqtt.adafruit_minimqtt import MMQTTException

import tb_device_mqtt
from clients import ATTRIBUTES, TELEMETRY, Notes
from tb_device_mqtt import TBDeviceMqttClient


class FakeMQTT:
    """The methods of MiniMQTT's MQTT that a double has at least, and nothing else that is public.

    Above the line is what the library calls, below what a test does.
    """

    def __init__(self, **settings):
        self._settings = settings
        self._is_connected = False
        self._waiting = []
        self._calls = []
        self._failure = None  # raised by the next call of the method of that name
        self.on_message = None

    def _note(self, *call):
        self._calls.append(call)
        if self._failure is not None and self._failure[0] == call[0]:
            failure, self._failure = self._failure[1], None
            raise failure

    def will_set(self, topic, msg, retain=False, qos=0):
        self._note("will_set", topic, msg, retain, qos)

    def connect(self, clean_session=True):
        self._note("connect", clean_session)
        self._is_connected = True

    def disconnect(self):
        self._note("disconnect")
        self._is_connected = False

    def is_connected(self):
        return self._is_connected

    def publish(self, topic, msg, retain=False, qos=0):
        self._note("publish", topic, msg, retain, qos)

    def subscribe(self, topic, qos=0):
        self._note("subscribe", topic, qos)

    def unsubscribe(self, topic):
        self._note("unsubscribe", topic)

    def loop(self, timeout=1):
        if self._failure is not None and self._failure[0] == "loop":
            self._note("loop")
        while self._waiting:
            self.on_message(self, *self._waiting.pop(0))

    # ---

    def deliver(self, topic, message):
        """The server publishes; the next loop() brings it."""
        self._waiting.append((topic, message))

    def fail(self, method, failure):
        """The next call of this method raises."""
        self._failure = (method, failure)

    def calls_of(self, method):
        """The arguments of each call."""
        return [call[1:] for call in self._calls if call[0] == method]

    @property
    def settings(self):
        return self._settings

    @property
    def published(self):
        """``[(topic, decoded payload), ...]``."""
        return [(topic, json.loads(msg)) for topic, msg, _, _ in self.calls_of("publish")]


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setattr(tb_device_mqtt, "MQTT", FakeMQTT)
    client = TBDeviceMqttClient("server.test", access_token="TOKEN", client_id="me")
    client._link.backoff_ms = 0
    yield client
    client.disconnect()


@pytest.fixture
def mqtt(client):
    """The `FakeMQTT` of a client that is connected."""
    client.connect()
    return client._link.mqtt


def settle(client, polls=10):
    for _ in range(polls):
        client.check_for_msg()


def test_it_is_given_where_to_connect_and_who_we_are(client, mqtt):
    expected = {
        "broker": "server.test",
        "port": 1883,
        "client_id": "me",
        "username": "TOKEN",
        "keep_alive": 60,
        "is_ssl": False,
        "use_binary_mode": True,
    }
    assert expected.items() <= mqtt.settings.items()
    assert mqtt.calls_of("connect") == [(True,)]
    assert client.connected


def test_telemetry_goes_out_and_is_acknowledged(client, mqtt):
    acknowledged = Notes()
    client.on_publish = acknowledged
    number = client.send_telemetry({"temperature": 21.5})
    settle(client)
    assert mqtt.published == [(TELEMETRY, {"temperature": 21.5})]
    assert mqtt.calls_of("publish")[0][2:] == (False, 1)
    assert acknowledged.calls == [(client, None, TELEMETRY, number)]
    assert client.pending_messages_count == 0


def test_telemetry_of_quality_0_goes_out_with_0(client, mqtt):
    client.send_telemetry({"temperature": 21.5}, 0)
    settle(client)
    assert mqtt.calls_of("publish") == [(TELEMETRY, b'{"temperature":21.5}', False, 0)]


def test_a_long_message_goes_out_whole(client, mqtt):
    client.send_telemetry({"text": "ä" * 500})
    client.publish("t", b"\x00\xff" * 2000, 1, True)
    settle(client)
    telemetry, plain = mqtt.calls_of("publish")
    assert json.loads(telemetry[1]) == {"text": "ä" * 500}
    assert plain == ("t", b"\x00\xff" * 2000, True, 1)


def test_attributes_are_sent_asked_for_and_pushed(client, mqtt):
    answers, pushed = Notes(), Notes()
    client.send_attributes({"model": "mk1"})
    client.subscribe_to_all_attributes(pushed)
    client.request_attributes(["model"], callback=answers)
    settle(client)
    assert (ATTRIBUTES, {"model": "mk1"}) in mqtt.published
    topic, question = mqtt.published[-1]
    assert topic.startswith(ATTRIBUTES + "/request/")
    assert question == {"clientKeys": "model"}
    assert sorted(mqtt.calls_of("subscribe")) == [
        (ATTRIBUTES, 1),
        (ATTRIBUTES + "/response/+", 1),
    ]
    mqtt.deliver(topic.replace("request", "response"), b'{"client":{"model":"mk1"}}')
    mqtt.deliver(ATTRIBUTES, b'{"interval":5}')
    settle(client)
    assert answers.calls == [({"client": {"model": "mk1"}}, None)]
    assert pushed.firsts == [{"interval": 5}]
    client.clean_device_sub_dict()
    settle(client)
    assert mqtt.calls_of("unsubscribe") == [(ATTRIBUTES,)]


@pytest.mark.parametrize("message", (b'{"method":"getLamp"}', '{"method":"getLamp"}'))
def test_an_rpc_is_answered_in_the_poll_that_brings_it(client, mqtt, message):
    """Bytes or text: not every double knows the binary mode."""
    client.rpc("getLamp")(lambda params: {"on": True})
    settle(client)
    mqtt.deliver("v1/devices/me/rpc/request/8", message)
    assert client.check_for_msg() == 1
    assert mqtt.published == [("v1/devices/me/rpc/response/8", {"on": True})]


def test_a_call_of_ours_is_answered(client, mqtt):
    answers = Notes()
    number = client.send_rpc_call("getTime", callback=answers)
    settle(client)
    assert mqtt.calls_of("subscribe") == [("v1/devices/me/rpc/response/+", 1)]
    mqtt.deliver("v1/devices/me/rpc/response/%d" % number, b'{"time":12}')
    settle(client)
    assert answers.calls == [(number, {"time": 12}, None)]


def test_a_long_message_arrives_whole(client, mqtt):
    received = Notes()
    client.subscribe("t", received)
    settle(client)
    mqtt.deliver("t", b"x" * 5000)
    mqtt.deliver("t", bytearray(b"y"))
    settle(client, 50)
    assert received.calls == [("t", b"x" * 5000), ("t", b"y")]


NO_MEMORY = OSError(errno.ENOMEM, "no buffer")
FAILURES = [
    (method, failure)
    for failure in (OSError(104, "reset"), MMQTTException("no answer"))
    for method in ("publish", "loop")
]


@pytest.mark.parametrize(
    "method, failure", [*FAILURES, ("publish", NO_MEMORY), ("publish", ValueError("size"))]
)
def test_what_it_raises_costs_the_connection_and_nothing_is_lost(client, mqtt, method, failure):
    states = Notes()
    client.on_state = states
    client.subscribe_to_all_attributes(print)
    settle(client)
    mqtt.fail(method, failure)
    client.send_attributes({"a": 1})
    settle(client)
    assert [call[2] for call in states.calls] == ["waiting", "connecting", "online"]
    assert len(mqtt.calls_of("disconnect")) == 1
    assert len(mqtt.calls_of("connect")) == 2
    assert len(mqtt.calls_of("subscribe")) == 2
    assert mqtt.published[-1] == (ATTRIBUTES, {"a": 1})
    assert client.pending_messages_count == 0


def test_what_was_acknowledged_before_the_loss_is_not_sent_again(client, mqtt):
    client.send_attributes({"a": 1})
    mqtt.fail("loop", OSError(104, "reset"))
    settle(client)
    assert len(mqtt.calls_of("connect")) == 2
    assert mqtt.published == [(ATTRIBUTES, {"a": 1})]


@pytest.mark.parametrize("failure", (OSError(104, "reset"), MMQTTException("no answer")))
def test_what_could_not_be_published_is_sent_again_and_it_alone(client, mqtt, failure):
    loops, told = [], Notes()
    client.on_publish = told
    client.send_attributes({"a": 1})
    mqtt.fail("publish", failure)
    client.send_attributes({"b": 2})
    mqtt.loop = lambda timeout=1: loops.append(client.last_error)
    client.check_for_msg()
    assert client.state == "waiting"
    assert not loops  # of a connection that is gone
    assert client.pending_messages_count == 1
    settle(client)
    assert mqtt.published == [(ATTRIBUTES, {"a": 1})] + 2 * [(ATTRIBUTES, {"b": 2})]
    assert len(told.calls) == client.stats["acknowledged"] == 2


def test_after_hours_a_lost_connection_is_soon_back(client, mqtt, monkeypatch):
    client._link.backoff_ms = 1000
    now = [tb_device_mqtt.ticks_ms()]
    monkeypatch.setattr(tb_device_mqtt, "ticks_ms", lambda: now[0] % (1 << 29))
    for _ in range(6):
        now[0] += 3600000
        client.check_for_msg()
        mqtt.fail("loop", OSError(104, "reset"))
        client.check_for_msg()
        assert client.state == "waiting"
        now[0] += 1100
        settle(client)
        assert client.connected


def test_an_attempt_that_fails_is_told_and_tried_again(client):
    mqtt = client._link.mqtt
    mqtt.fail("connect", MMQTTException("Connect failure"))
    with pytest.raises(OSError, match=r"server\.test port 1883"):
        client.connect()
    assert client.state == "waiting"
    settle(client)
    assert client.connected


def test_it_is_disconnected_once(client, mqtt):
    client.disconnect()
    client.disconnect()
    assert mqtt.calls_of("disconnect") == [()]
    assert client.state == "stopped"


def test_a_will_is_handed_over(client):
    client.will_set("w", "gone", 1, True)
    topic, message, retain, quality_of_service = client._link.mqtt.calls_of("will_set")[0]
    assert (topic, message) in (("w", "gone"), ("w", b"gone"))
    assert (retain, quality_of_service) == (True, 1)


def test_a_second_client_has_an_object_of_its_own(client, mqtt):
    other = TBDeviceMqttClient("server.test", access_token="OTHER")
    other.connect()
    other.send_telemetry({"of": "other"})
    settle(other)
    assert other._link.mqtt is not mqtt
    assert mqtt.published == []
    other.disconnect()


def test_an_hour_passes_without_a_ping_that_nobody_would_answer(client, mqtt, monkeypatch):
    start = tb_device_mqtt.ticks_ms()
    now = [start]
    monkeypatch.setattr(tb_device_mqtt, "ticks_ms", lambda: now[0] % (1 << 29))
    for _ in range(3600):
        now[0] += 1000
        client.check_for_msg()
    assert client.connected
    assert len(mqtt.calls_of("connect")) == 1
