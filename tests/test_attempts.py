# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Attempts to connect: which address, which server, how often, and what is said of the end."""

import re

import pytest

import tb_device_mqtt
from fakes import Clock, FakePool, MemoryServer
from faults import scripted_broker as mqtt
from tb_device_mqtt import TBRefusedError, TBTimeoutError
from world import CONNACK, World

AF_INET6 = 10


@pytest.fixture
def clock():
    with Clock() as running:
        yield running


@pytest.fixture
def world(clock):
    return World(clock)


@pytest.fixture
def memory_server(clock):
    return MemoryServer(clock)


@pytest.fixture
def memory_device(memory_server):
    return memory_server.add_device("Device", token="TOKEN")


@pytest.fixture
def served(clock, memory_server, memory_device):
    """A `World` whose server is the stand-in."""
    return World(clock, memory_server)


# --- addresses ---


class Addresses:
    """Has a pool know several addresses of each host. *tried*: those that were, in order."""

    def __init__(self, pool, *found, dead=()):
        self.tried = []
        self._pool = pool
        self._found = found
        self.dead = dead
        pool.getaddrinfo = self._getaddrinfo
        self._socket = pool.socket
        pool.socket = self._make_socket

    def _getaddrinfo(self, _host, port, _family=0, _kind=0):
        return [
            (AF_INET6 if ":" in address else self._pool.AF_INET, 1, 0, "", (address, port))
            for address in self._found
        ]

    def _make_socket(self, *arguments):
        made = self._socket(*arguments)
        connect = made.connect

        def connect_if_alive(address):
            self.tried.append(address[0])
            if address[0] in self.dead:
                raise TimeoutError(110, "ETIMEDOUT")
            connect(address)

        made.connect = connect_if_alive
        return made


def test_a_dead_address_is_followed_by_the_next_one_at_once_and_connect_goes_on(served):
    addresses = Addresses(served.pool, "10.0.0.1", "10.0.0.2", dead=("10.0.0.1",))
    assert served.client.connect() is True
    assert addresses.tried == ["10.0.0.1", "10.0.0.2"]


def test_the_address_that_was_reached_is_the_first_the_next_time(served, memory_device):
    addresses = Addresses(served.pool, "10.0.0.1", "10.0.0.2", dead=("10.0.0.1",))
    served.client.connect()
    memory_device.disconnect()
    served.run_until_state("waiting")
    served.run_until_state("online")
    assert addresses.tried == ["10.0.0.1", "10.0.0.2", "10.0.0.2"]


def test_ipv4_is_tried_before_ipv6_in_the_order_of_dns(world):
    found = ("fd00::1", "10.0.0.9", "fd00::2", "10.0.0.1")
    addresses = Addresses(world.pool, *found, dead=found)
    with pytest.raises(OSError, match="no answer"):
        world.client.connect()
    assert addresses.tried == ["10.0.0.9", "10.0.0.1", "fd00::1", "fd00::2"]


def test_after_all_addresses_there_is_a_pause(world):
    found = ("10.0.0.1", "10.0.0.2")
    addresses = Addresses(world.pool, *found, dead=found)
    world.client.connect(timeout=0)
    world.run(0.4)
    assert addresses.tried == list(found)
    world.run(20)
    assert addresses.tried == list(found) * (len(addresses.tried) // 2)
    assert 6 <= len(addresses.tried) <= 14


def test_an_address_that_refuses_us_is_told_although_there_is_another(served, memory_server):
    memory_server.faults.connack = 5
    addresses = Addresses(served.pool, "10.0.0.1", "10.0.0.2")
    with pytest.raises(TBRefusedError):
        served.client.connect()
    assert len(addresses.tried) == 1


def test_an_address_that_does_not_answer_connect_is_followed_by_the_next_one(world):
    addresses = Addresses(world.pool, "10.0.0.1", "10.0.0.2")
    world.client.connect(timeout=0)
    world.run(14)
    assert addresses.tried[:2] == ["10.0.0.1", "10.0.0.2"]


# --- a server that can't bear what precedes its CONNACK ---


def arrive_in_order(served, memory_device):
    for number in range(3):
        served.client.send_telemetry({"n": number})
    served.client.subscribe_to_all_attributes(print)
    assert served.client.connect(timeout=10) is True
    served.run_until(lambda: not served.client.pending_messages_count)
    return [values["n"] for _, values in memory_device.telemetry]


@pytest.mark.parametrize("how", ("close", "silence"))
def test_a_server_that_can_not_bear_early_packets_gets_them_after_its_connack(
    served, memory_server, memory_device, how
):
    memory_server.faults.strict_before_connack = how
    started_ms = served.clock.now_ms
    assert arrive_in_order(served, memory_device) == [0, 1, 2]
    assert memory_server.board.accepted == 2
    assert served.clock.now_ms - started_ms < (1000 if how == "close" else 7000)
    assert "v1/devices/me/attributes" in memory_device.subscriptions


def test_that_server_is_remembered(served, memory_server, memory_device):
    memory_server.faults.strict_before_connack = "close"
    arrive_in_order(served, memory_device)
    memory_device.disconnect()
    served.client.send_telemetry({"n": 3})
    served.run_until(lambda: not served.client.pending_messages_count)
    assert memory_server.board.accepted == 3


def test_a_server_that_closes_in_any_case_is_told_at_the_second_time(served, memory_server):
    memory_server.faults.connack = "close"
    served.client.send_telemetry({"n": 1})
    with pytest.raises(OSError, match="closed by the server before CONNACK"):
        served.client.connect()
    assert memory_server.board.accepted == 2


def test_a_refusal_is_told_at_once_and_changes_nothing(served, memory_server):
    memory_server.faults.connack = 5
    served.client.send_telemetry({"n": 1})
    with pytest.raises(TBRefusedError):
        served.client.connect()
    memory_server.faults.connack = None
    memory_server.faults.connack_delay = 0.1
    served.open()
    served.settle(20)
    assert mqtt.PUBLISH in [packet.type for packet in served.sent]
    assert memory_server.board.accepted == 2


def test_without_early_packets_connack_has_its_whole_time(world):
    world.client.connect(timeout=0)
    world.run(8)
    assert world.client.last_error is None
    world.run(3)
    assert isinstance(world.client.last_error, TBTimeoutError)


# --- why the server hung up ---


def end(world):
    world.socket.end()
    world.run_until_state("waiting")
    return str(world.client.last_error)


def test_a_message_that_the_server_hangs_up_on_is_named_by_its_topic(world):
    world.go_online()
    world.client.publish("v1/devices/me/telemetry", b"bad", 1)
    world.settle(5)
    assert end(world).endswith("closed by the server after a message to v1/devices/me/telemetry")


def test_a_message_that_was_acknowledged_is_not_blamed(world):
    world.go_online()
    world.client.publish("v1/devices/me/telemetry", b"good", 1)
    world.settle(5)
    (publish,) = world.sent_of(mqtt.PUBLISH)
    world.socket.feed(mqtt.puback(publish.packet_id))
    world.settle(5)
    assert end(world).endswith("closed by the server")


def test_credentials_are_blamed_where_the_server_hangs_up_behind_connack_again_and_again(world):
    told = []
    for _ in range(5):
        world.open(seconds=30)
        world.socket.feed(CONNACK)
        world.run_until_state("online")
        told.append(end(world))
    assert "credentials used twice?" not in told[0]
    assert told[-1].endswith("closed by the server again and again: credentials used twice?")


def test_credentials_are_not_blamed_for_a_message(world):
    world.client.publish("a/b", b"bad", 1)
    for _ in range(5):
        world.open(seconds=30)
        world.socket.feed(CONNACK)
        world.run_until_state("online")
        told = end(world)
    assert told.endswith("closed by the server after a message to a/b")


@pytest.mark.parametrize("size", (1, 40, 200))
def test_a_web_server_is_told_in_words(world, size):
    world.open()
    world.socket.feed((b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n" * 9)[:size])
    world.run_until_state("waiting")
    assert str(world.client.last_error) == "The reply was not MQTT. Is this the web (HTTP) port?"


# --- memory ---


class NoMemory:
    """Stands for any step of an attempt."""

    def __init__(self):
        self.calls = 0

    def __call__(self, *_arguments, **_options):
        self.calls += 1
        raise MemoryError


@pytest.mark.parametrize(
    "names",
    (
        ("_connect_error",),
        ("_connect_error", "_close"),
        ("_lose",),
        ("_adopt", "_connect_error", "_lose"),
    ),
)
@pytest.mark.parametrize("step", ("getaddrinfo", "socket"))
def test_500_polls_without_memory_are_a_handful_of_attempts(world, monkeypatch, names, step):
    failing = NoMemory()
    monkeypatch.setattr(world.pool, step, failing, raising=False)
    for name in names:
        place = tb_device_mqtt._Link if hasattr(tb_device_mqtt._Link, name) else tb_device_mqtt
        monkeypatch.setattr(place, name, NoMemory())
    world.client.connect(timeout=0)
    for _ in range(500):
        world.poll(ms=2)
    assert 1 <= failing.calls <= 3


def test_no_memory_inside_of_minimqtt_is_told_as_such(world, monkeypatch):
    def pack(*_arguments):
        raise MemoryError

    monkeypatch.setattr("adafruit_minimqtt.adafruit_minimqtt.struct.pack", pack)
    with pytest.raises(OSError, match="too little memory left"):
        world.client.connect()


@pytest.mark.parametrize("error", (AttributeError, KeyError, UnicodeError, ArithmeticError))
def test_whatever_minimqtt_raises_the_poll_goes_on(world, monkeypatch, error):
    def connect(*_arguments, **_options):
        raise error("odd")  # a UnicodeError is what the name of a host may lead to

    with monkeypatch.context() as patched:
        patched.setattr(world.client._link.mqtt, "connect", connect)
        with pytest.raises(OSError, match=r"odd|host not known: server\.test"):
            world.client.connect()
    world.go_online()


# --- another server, another token ---


def test_a_new_token_is_used_from_the_next_attempt_on(served, memory_server, memory_device):
    served.client.connect()
    new = memory_server.add_device("New", token="NEW")
    served.client.set_connection(access_token="NEW")
    served.run(1)
    assert memory_device.online and not new.online
    memory_device.disconnect()
    served.client.send_telemetry({"n": 1})
    served.run_until(lambda: not served.client.pending_messages_count)
    assert [values for _, values in new.telemetry] == [{"n": 1}]


def connect_of(world):
    """User name, password and flags of the next CONNECT."""
    world.open(seconds=70)
    credentials = world.sent[0].credentials
    return credentials.username, credentials.password


def test_credentials_of_one_kind_take_the_place_of_the_other(world):
    world.client.set_connection(username="u", password="p")
    assert connect_of(world) == ("u", b"p")
    world.client.disconnect()
    world.client.set_connection(access_token="T")
    username, password = connect_of(world)
    assert (username, bool(password)) == ("T", False)
    world.client.disconnect()
    world.client.set_connection(access_token=None)
    assert not connect_of(world)[0]


def test_a_password_alone_can_be_changed(clock):
    world = World(clock, access_token=None, username="u", password="old")
    world.client.set_connection(password="new")
    assert connect_of(world) == ("u", b"new")


class NotingPool(FakePool):
    def __init__(self):
        super().__init__()
        self.asked = []

    def getaddrinfo(self, host, port, _family=0, _kind=0):
        self.asked.append((host, port))
        return super().getaddrinfo(host, port)


class Context:
    """TLS that only notes the name that it is to check."""

    def __init__(self):
        self.names = []

    def wrap_socket(self, plain, server_hostname):
        self.names.append(server_hostname)
        return plain


def test_host_port_and_tls_can_be_changed(clock):
    world, context = World(clock, pool=NotingPool()), Context()
    world.open()
    world.client.disconnect()
    world.client.set_connection(host="other.test", tls=context)
    world.open()
    world.client.disconnect()
    world.client.set_connection(port=1234, tls=False)
    world.open()
    assert world.pool.asked == [("server.test", 1883), ("other.test", 8883), ("other.test", 1234)]
    assert context.names == ["other.test"]


@pytest.mark.parametrize(
    "changes, named",
    (
        ({"host": ""}, "host"),
        ({"port": "x"}, "port"),
        ({"tls": ""}, "tls"),
        ({"access_token": ""}, "access_token"),
        ({"access_token": "T", "username": "u"}, "access_token"),
        ({"colour": "red"}, "colour"),
    ),
)
def test_a_change_that_can_not_be_is_refused_by_name_and_nothing_changes(clock, changes, named):
    world = World(clock, pool=NotingPool())
    with pytest.raises((TypeError, ValueError), match=named):
        world.client.set_connection(**{"host": "other.test", **changes})
    assert connect_of(world)[0] == "TOKEN"
    assert world.pool.asked == [("server.test", 1883)]


# --- client id ---


def test_the_client_id_of_a_computer_is_made_of_64_random_bits(clock):
    made = {World(clock, client_id=None).client._link.mqtt.client_id for _ in range(50)}
    assert len(made) == 50
    assert all(re.fullmatch("tb-[0-9a-f]{8,16}", one) for one in made)
    assert len({len(one) for one in made}) < 4
