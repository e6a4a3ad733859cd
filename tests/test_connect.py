# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""connect() and disconnect(): what they return, what they raise, what the words say."""

import errno
import socket
import time

import pytest

from clients import (
    Clock,
    LogNotes,
    Notes,
    flush,
    lose,
    new_client,
    offline_client,
    online_client,
    packets,
    values,
)
from faults.scripted_broker import CONNECT, DISCONNECT, ScriptedBroker
from helpers import free_port, run_for, run_until
from tb_device_mqtt import TBDeviceMqttClient, TBError, TBRefusedError, TBTimeoutError

TOKEN = "S3CRET-TOKEN"
PASSWORD = "PASSW0RD"
SOON_S = 0.1  # how long silence is listened to


@pytest.fixture
def client(server, device):
    """A client of Device A that was not connected yet."""
    with offline_client(server) as client:
        yield client


def refused(server, **options):
    """The error of a connect() that the server refuses."""
    with offline_client(server, **options) as client:
        with pytest.raises(TBRefusedError) as caught:
            client.connect()
        assert client.last_error is caught.value
        assert not client.connected
    return caught.value


def fails(client, error, **options):
    with pytest.raises(error) as caught:
        client.connect(**options)
    assert not client.connected
    return caught.value


# --- the good case ---


def test_connect_is_true_and_so_is_connected(client, device):
    assert (client.connected, client.is_connected(), client.state) == (False, False, "stopped")
    assert client.connect() is True
    assert (client.connected, client.is_connected(), client.state) == (True, True, "online")
    assert device.online
    assert client.last_error is None


def test_connect_twice_is_no_second_connection(server, client, device):
    assert client.connect() is True
    assert client.connect() is True
    assert client.connect(timeout=0) is True
    assert server.accepted == 1


def test_disconnect_says_so_and_closes(server, client, device):
    client.connect()
    client.disconnect()
    assert (client.connected, client.is_connected(), client.state) == (False, False, "stopped")
    assert device.wait(lambda device: not device.online)
    assert device.wait(lambda _: server.connections == 0)
    assert packets(server)[-1] == "DISCONNECT"


def test_disconnect_twice_and_before_connect_is_no_error(server, client, device):
    client.disconnect()
    client.disconnect()
    client.connect()
    client.disconnect()
    client.disconnect()
    assert device.wait(lambda _: server.connections == 0)
    assert packets(server).count("DISCONNECT") == 1


def test_after_disconnect_the_client_stays_away(server, client, device):
    client.connect()
    client.disconnect()
    run_for(client, SOON_S)
    assert client.state == "stopped"
    assert server.accepted == 1


def test_connect_after_disconnect_works_again_and_again(client, device):
    for count in range(1, 6):
        assert client.connect() is True
        client.send_telemetry({"count": count})
        assert client.flush(5)
        client.disconnect()
        assert device.connects == count
    assert [row["count"] for row in values(device)] == [1, 2, 3, 4, 5]


def test_disconnect_sends_what_the_socket_takes_at_once(client, device):
    client.connect()
    client.send_telemetry({"a": 1})
    client.disconnect()
    assert device.wait(lambda device: device.telemetry)


def test_what_is_queued_stays_queued_over_disconnect(server, client, device):
    client.connect()
    server.faults.silent = True
    client.send_telemetry({"a": 1})
    client.send_attributes({"b": 2})
    client.disconnect()
    client.send_telemetry({"c": 3})
    assert client.pending_messages_count == 3
    assert device.wait(lambda _: server.connections == 0)
    server.faults.silent = False
    client.connect()
    assert client.flush(5)
    assert [set(row) for row in values(device)] == [{"a"}, {"c"}]
    assert device.client_attributes == {"b": 2}


def test_a_second_client_with_the_same_token_takes_over(server, client, device):
    client.connect()
    with new_client(server) as second:
        run_until(client, lambda: not client.connected)
        assert second.connected
        client.disconnect()
        run_for(second, SOON_S)
        assert second.connected


# --- with ---


def test_with_connects_and_disconnects(server, device):
    with new_client(server) as client:
        assert client.connected
        client.send_telemetry({"a": 1})
    assert client.state == "stopped"
    assert values(device) == [{"a": 1}]


def test_with_sends_what_is_queued_before_it_leaves(server, device):
    server.faults.puback_delay = 0.05
    with new_client(server) as client:
        for number in range(30):
            client.send_telemetry({"a": number})
    assert client.pending_messages_count == 0
    assert [row["a"] for row in values(device)] == list(range(30))


def test_with_does_not_wait_for_ever(server, device):
    server.faults.mute_puback = True
    with new_client(server) as client:
        client.request_timeout = 0.1
        client.send_telemetry({"a": 1})
    assert client.state == "stopped"


def test_with_disconnects_and_lets_an_exception_through_at_once(server, device):
    server.faults.mute_puback = True
    client = new_client(server)
    started = time.monotonic()
    with pytest.raises(KeyError), client:
        client.send_telemetry({"a": 1})
        raise KeyError
    assert client.state == "stopped"
    assert time.monotonic() - started < 5


def test_with_raises_what_connect_raises(server, device):
    client = new_client(server, access_token="WRONG")
    with pytest.raises(TBRefusedError), client:
        pytest.fail("never gets here")
    client.disconnect()


# --- timeout=0 ---


def test_timeout_0_starts_and_goes_online_by_itself(client, device):
    assert client.connect(timeout=0) is False
    assert client.state in ("waiting", "connecting")
    run_until(client, lambda: client.connected)
    assert device.online


def test_timeout_0_raises_nothing_when_nobody_listens(server, client, device):
    server.stop_listening()
    assert client.connect(timeout=0) is False
    run_until(client, lambda: client.last_error is not None)
    assert isinstance(client.last_error, OSError)
    assert client.connect(timeout=0) is False
    server.listen_again()
    run_until(client, lambda: client.connected)


def test_timeout_0_raises_nothing_when_refused(server):
    with offline_client(server, access_token="WRONG") as client:
        assert client.connect(timeout=0) is False
        run_until(client, lambda: client.last_error is not None)
        assert isinstance(client.last_error, TBRefusedError)
        assert client.connect(timeout=0) is False


def test_calls_before_connect_are_queued_and_go_out(client, device):
    notes = Notes()
    device.push_attributes({"mode": "auto"})
    client.send_telemetry({"a": 1})
    client.send_attributes({"b": 2})
    client.claim_device("code", 60000)
    client.publish("any/topic", "payload")
    client.request_attributes(shared_keys="mode", callback=notes)
    client.rpc("method")(Notes("ok"))
    assert client.pending_messages_count == 5
    client.connect()
    assert client.flush(5)
    assert values(device) == [{"a": 1}]
    assert device.client_attributes == {"b": 2}
    assert device.claim["secretKey"] == "code"
    assert "any/topic" in [topic for topic, _, _, _ in device.messages]
    run_until(client, lambda: notes.calls)
    reply = device.call_rpc("method")
    run_until(client, reply.done)


def test_what_was_queued_does_not_wait_for_connack(server, client, device):
    server.faults.connack_delay = 0.2
    client.send_telemetry({"a": 1})
    client.connect(timeout=0)
    run_until(client, lambda: "PUBLISH" in packets(server))
    assert packets(server, "out") == []
    flush(client)


# --- refused ---


def test_a_wrong_token_is_told_within_a_round_trip(server, device):
    best_s = 9
    for _ in range(5):
        started = time.perf_counter()
        error = refused(server, access_token="WRONG")
        best_s = min(best_s, time.perf_counter() - started)
    assert error.code == 5
    assert isinstance(error, TBError)
    assert best_s < 0.1


def test_the_words_name_the_credential_and_never_tell_it(server, device):
    logger = LogNotes()
    with offline_client(server, access_token=TOKEN, logger=logger) as client:
        error = fails(client, TBRefusedError)
        told = [str(error), repr(error), repr(client), repr(client.last_error), repr(client.stats)]
    assert "refused the access token: no device has it" in str(error)
    assert "CONNACK 5" in str(error)
    assert "refused" in logger.text
    assert TOKEN not in "".join([*told, logger.text])


@pytest.mark.parametrize(
    "credentials", [{"password": "wrong"}, {"username": "other"}, {"password": None}]
)
def test_a_wrong_user_name_or_password_is_told(server, credentials):
    server.add_device("Basic", username="user", password=PASSWORD)
    logger = LogNotes()
    options = {"username": "user", "password": PASSWORD, **credentials}
    error = refused(server, access_token=None, logger=logger, **options)
    assert error.code == 5
    assert "refused the username" in str(error)
    assert PASSWORD not in str(error) + logger.text


def test_the_right_user_name_and_password_are_accepted(server):
    basic = server.add_device("Basic", username="user", password=PASSWORD)
    client = new_client(server, access_token=None, username="user", password=PASSWORD)
    with client:
        client.send_telemetry({"a": 1})
    assert values(basic) == [{"a": 1}]


def test_a_user_name_needs_no_password(server):
    basic = server.add_device("Basic", username="user")
    with new_client(server, access_token=None, username="user"):
        assert basic.online


def test_a_client_id_alone_may_be_the_credential(server):
    by_id = server.add_device("By id", client_id="my-id")
    with new_client(server, access_token=None, client_id="my-id"):
        assert by_id.online


def test_no_credential_at_all_is_refused_with_words(server, device):
    error = refused(server, access_token=None)
    assert error.code == 2
    assert "no access token was given (CONNACK 2)" in str(error)


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 255])
def test_every_return_code_is_told_in_words(server, device, code):
    server.faults.connack = code
    error = refused(server)
    assert error.code == code
    assert "CONNACK %d" % code in str(error)
    assert ("unknown" in str(error)) == (code > 5)
    assert len(str(error)) > 40
    assert "TOKEN_A" not in str(error)


def test_different_return_codes_have_different_words(server, device):
    words = set()
    for code in (1, 2, 3, 4, 5):
        server.faults.connack = code
        words.add(str(refused(server)).replace(str(code), ""))
    assert len(words) == 5


@pytest.mark.parametrize("code", [1, 2, 4, 5])
def test_what_will_not_change_is_not_tried_again_for_half_a_minute(
    server, device, monkeypatch, code
):
    clock = Clock(monkeypatch)
    server.faults.connack = code
    client = TBDeviceMqttClient("127.0.0.1", server.port, "TOKEN_A")
    fails(client, TBRefusedError)
    for _ in range(29):
        clock.skip(1)
        run_for(client, 0.005)
    assert server.accepted == 1
    clock.skip(31)
    run_until(client, lambda: server.accepted == 2)
    client.disconnect()


def test_a_server_that_is_not_available_is_tried_again_soon(server, client, device):
    server.faults.connack = 3
    fails(client, TBRefusedError)
    server.faults.connack = None
    run_until(client, lambda: client.connected)


def test_connect_again_tries_at_once(server, device):
    with offline_client(server, access_token="NEW") as client:
        fails(client, TBRefusedError)
        server.add_device("New", token="NEW")
        assert client.connect() is True


def test_a_device_whose_token_was_refused_keeps_what_is_queued(server):
    with offline_client(server, access_token="NEW") as client:
        client.send_telemetry({"a": 1})
        fails(client, TBRefusedError)
        assert client.pending_messages_count == 1
        new = server.add_device("New", token="NEW")
        client.connect()
        assert client.flush(5)
    assert [set(row) for row in values(new)] == [{"a"}]


# --- no connection ---


def test_nobody_listening_is_an_oserror_that_says_so(device):
    port = free_port()
    client = TBDeviceMqttClient("127.0.0.1", port, TOKEN)
    error = fails(client, OSError)
    assert "127.0.0.1 port %d" % port in str(error)
    assert "[Errno %d] connection refused: no server is listening on" % errno.ECONNREFUSED in str(
        error
    )
    assert str(error).lower().count("refused") == 1
    assert client.last_error is error
    assert client.state == "waiting"
    client.disconnect()


def test_an_unknown_host_is_an_oserror_that_says_so(monkeypatch):
    def getaddrinfo(*_arguments, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    client = TBDeviceMqttClient("thingsboard.invalid", 1883, TOKEN)
    error = fails(client, OSError)
    assert "thingsboard.invalid" in str(error)
    assert "host" in str(error)
    client.disconnect()


@pytest.mark.parametrize("host", ["a" * 64 + ".invalid", "no..thing.invalid", "\ud800"])
def test_a_host_that_can_not_be_looked_up_is_an_oserror(host):
    client = TBDeviceMqttClient(host, 1883, TOKEN)
    fails(client, OSError)
    client.disconnect()


@pytest.mark.parametrize("number", [101, 110, 113, 12])
def test_any_error_of_the_socket_is_an_oserror_with_its_number(monkeypatch, device, number):
    class Failing(socket.socket):
        def connect(self, _address):
            raise OSError(number, "the system says so")

    monkeypatch.setattr(socket, "socket", Failing)
    client = TBDeviceMqttClient("127.0.0.1", 1883, TOKEN)
    error = fails(client, OSError)
    assert error.errno == number
    assert "127.0.0.1 port 1883" in str(error)
    assert "TLS" not in str(error)
    client.disconnect()


def test_no_memory_to_connect_is_an_oserror_that_says_so(monkeypatch):
    def getaddrinfo(*_arguments, **_options):
        raise MemoryError

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    client = TBDeviceMqttClient("127.0.0.1", 1883, TOKEN)
    error = fails(client, OSError)
    assert "memory" in str(error)
    assert isinstance(error.errno, int)
    client.disconnect()


def test_a_server_that_hangs_up_at_connect_is_an_oserror(server, client, device):
    server.faults.connack = "close"
    error = fails(client, OSError)
    assert "closed" in str(error)
    server.faults.connack = None
    run_until(client, lambda: client.connected)


def test_a_server_that_is_none_is_told(device):
    def http(connection):
        connection.read_exactly(10)
        connection.send(b"HTTP/1.1 400 Bad Request\r\n" + b"Header: value\r\n" * 10)
        connection.read_until_end()

    with ScriptedBroker(http) as broker:
        client = new_client(broker)
        words = "The reply was not MQTT. Is this the web (HTTP) port?"
        assert str(fails(client, TBError)) == words
        client.disconnect()


# --- no answer ---


def test_no_connack_within_its_time_is_a_timeout_error(server, client, device, monkeypatch):
    server.faults.connack = "silence"
    monkeypatch.setattr("tb_device_mqtt._CONNACK_TIMEOUT_MS", 200)
    error = fails(client, TBTimeoutError)
    assert "CONNACK" in str(error)
    server.faults.connack = None
    run_until(client, lambda: client.connected)


def test_no_connack_within_timeout_is_a_timeout_error(server, client, device):
    server.faults.connack = "silence"
    started = time.monotonic()
    error = fails(client, TBTimeoutError, timeout=0.2)
    assert 0.19 <= time.monotonic() - started < 3
    assert isinstance(error, TBError)
    assert "0.2" in str(error)


def test_inside_a_handler_even_connect_without_end_has_one(server, device):
    raised = []

    def reconnect(_):
        client.disconnect()
        server.faults.connack = "silence"
        raised.append(fails(client, TBTimeoutError, timeout=None))

    with online_client(server) as client:
        client.request_timeout = 0.2
        client.rpc("reconnect")(reconnect)
        device.call_rpc("reconnect")
        run_until(client, lambda: raised)
    assert "0.2" in str(raised[0])


def test_after_a_timeout_the_attempt_goes_on(server, client, device):
    server.faults.connack_delay = 0.3
    fails(client, TBTimeoutError, timeout=0.05)
    run_until(client, lambda: client.connected)
    assert server.accepted == 1


def test_connect_may_be_called_again_while_an_attempt_is_under_way(server, client, device):
    server.faults.connack_delay = 0.2
    client.connect(timeout=0)
    run_until(client, lambda: server.accepted == 1)
    assert client.connect() is True
    assert server.accepted == 1


def test_disconnect_ends_an_attempt(server, client, device):
    server.faults.connack = "silence"
    client.connect(timeout=0)
    run_until(client, lambda: server.connections == 1)
    client.disconnect()
    assert client.state == "stopped"
    assert device.wait(lambda _: server.connections == 0)
    run_for(client, SOON_S)
    assert server.accepted == 1


def test_disconnect_ends_the_pause_before_the_next_attempt(server, client, device):
    server.stop_listening()
    fails(client, OSError)
    client.disconnect()
    server.listen_again()
    run_for(client, SOON_S)
    assert (client.state, server.accepted) == ("stopped", 0)


@pytest.mark.parametrize("timeout", [-1, "5", float("nan"), True, 1 << 40])
def test_a_timeout_that_is_none_is_refused_and_starts_nothing(server, client, device, timeout):
    with pytest.raises((TypeError, ValueError), match="timeout"):
        client.connect(timeout)
    assert client.state == "stopped"


@pytest.mark.parametrize("name", ["wait_for_msg", "flush"])
@pytest.mark.parametrize("timeout", [-1, "5", float("nan"), True])
def test_another_wait_refuses_such_a_timeout_too(client, name, timeout):
    client.send_telemetry({"a": 1})
    with pytest.raises((TypeError, ValueError), match="timeout"):
        getattr(client, name)(timeout)


def test_connect_timeout_bounds_the_attempt(monkeypatch, device):
    """A listener whose backlog is full answers no SYN, as a firewall would."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        try:
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
                fillers.append(filler)
            client = TBDeviceMqttClient("127.0.0.1", full.getsockname()[1], TOKEN)
            client.connect_timeout = 0.2
            started = time.monotonic()
            error = fails(client, OSError)
            assert time.monotonic() - started < 5
            assert "no answer" in str(error)
            client.disconnect()
        finally:
            for filler in fillers:
                filler.close()


# --- the radio ---


class Radio:
    """Says whether it is connected, as ``wifi.radio`` does."""

    def __init__(self, connected):
        self.connected = connected


class AirLift:
    """Says it as ``ESP_SPIcontrol`` does."""

    def __init__(self, connected):
        self._connected = connected

    @property
    def is_connected(self):
        return self._connected


class Wiznet:
    """Says it as ``WIZNET5K`` does."""

    def __init__(self, connected):
        self.link_status = connected


@pytest.mark.parametrize("kind", [Radio, AirLift, Wiznet])
def test_a_radio_without_network_is_told_without_an_attempt(server, device, kind):
    with offline_client(server, radio=kind(False), socket_pool=socket) as client:
        error = fails(client, OSError)
        assert "radio" in str(error)
        run_for(client, SOON_S)
        assert client.last_error is error
    assert server.accepted == 0
    assert client.stats["connects"] == 0


@pytest.mark.parametrize("kind", [Radio, AirLift, Wiznet])
def test_a_radio_with_network_is_used(server, device, kind):
    with new_client(server, radio=kind(True), socket_pool=socket):
        assert device.online


def test_the_client_comes_back_with_the_radio(server, device, monkeypatch):
    clock = Clock(monkeypatch)
    radio = Radio(False)
    with offline_client(server, radio=radio, socket_pool=socket) as client:
        fails(client, OSError)
        radio.connected = True
        clock.skip(1)
        run_until(client, lambda: client.connected)
        radio.connected = False
        lose(client, device)
        for _ in range(20):
            clock.skip(1)
            run_for(client, 0.005)
        assert device.connects == 1
        radio.connected = True
        clock.skip(1)
        run_until(client, lambda: client.connected)


# --- what CONNECT says ---


def connect_of(broker, **options):
    """What a client of these options says in CONNECT."""
    with new_client(broker, **options):
        pass
    (packet,) = [packet for packet in broker.packets if packet.type == CONNECT]
    return packet


def test_the_token_is_the_user_name(broker):
    credentials = connect_of(broker, access_token=TOKEN).credentials
    assert credentials.username == TOKEN
    assert not credentials.password
    assert credentials.clean_session is True
    assert credentials.keep_alive == 60


def test_user_name_and_password_are_told(broker):
    options = {"access_token": None, "username": "üser", "password": "pässword"}
    credentials = connect_of(broker, **options).credentials
    assert credentials.username == "üser"
    assert credentials.password == "pässword".encode()


def test_the_client_id_is_unique_unless_given(broker):
    first = connect_of(broker).credentials.client_id
    with ScriptedBroker(lambda connection: connection.answer_everything()) as other:
        second = connect_of(other).credentials.client_id
    assert first and second and first != second
    assert "TOKEN_A" not in first


def test_client_id_keep_alive_and_clean_session_are_told_as_given(broker):
    client = new_client(broker, client_id="my-id", keep_alive=17)
    client.clean_session = False
    with client:
        pass
    credentials = broker.packets[0].credentials
    assert credentials.client_id == "my-id"
    assert credentials.keep_alive == 17
    assert credentials.clean_session is False


def test_the_protocol_is_mqtt_3_1_1(broker):
    assert connect_of(broker).body[:7] == b"\x00\x04MQTT\x04"


def test_disconnect_is_the_last_packet(broker):
    with new_client(broker) as client:
        client.publish("any/topic", "payload")
    run_for(client, SOON_S)
    assert broker.packets[-1].type == DISCONNECT
    assert broker.packets[-1].body == b""
