# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The constructor's arguments, and the client that settings.toml describes."""

import inspect
import ssl
import threading
import time

import pytest

from clients import LogNotes, Notes, new_client
from helpers import run_until
from tb_device_mqtt import TBDeviceMqttClient

NAMES = ("HOST", "PORT", "TOKEN", "TLS")


@pytest.fixture
def settings(monkeypatch):
    """What stands in settings.toml: on a computer the environment."""
    for name in NAMES:
        monkeypatch.delenv("THINGSBOARD_" + name, raising=False)

    def write(**values):
        for name, value in values.items():
            monkeypatch.setenv("THINGSBOARD_" + name.upper(), str(value))

    return write


@pytest.fixture
def written(server, device, settings):
    """The settings of Device A, and the function that writes others."""
    settings(host="127.0.0.1", port=server.port, token="TOKEN_A")
    return settings


def arrives(client, device):
    """Whether what the client sends gets to the device."""
    with client:
        client.send_telemetry({"a": 1})
        return client.flush(5) and bool(device.telemetry)


# --- from_settings ---


def test_host_port_and_token_come_from_the_settings(written, device):
    assert arrives(TBDeviceMqttClient.from_settings(), device)


def test_numbers_may_stand_in_the_settings_without_quotes(server, monkeypatch):
    """CircuitPython's getenv() makes an int of them."""
    found = {"HOST": "127.0.0.1", "PORT": server.port, "TOKEN": 12345}
    monkeypatch.setattr("os.getenv", lambda name: found.get(name.partition("_")[2]))
    device = server.add_device("By number", token="12345")
    assert arrives(TBDeviceMqttClient.from_settings(), device)


def test_a_subclass_makes_one_of_its_own(written):
    class Board(TBDeviceMqttClient):
        pass

    assert type(Board.from_settings()) is Board


@pytest.mark.parametrize("host", [None, ""])
def test_without_a_host_the_missing_name_is_told(settings, host):
    if host is not None:
        settings(host=host)
    with pytest.raises(ValueError, match="THINGSBOARD_HOST"):
        TBDeviceMqttClient.from_settings()


def test_options_win(written, device):
    written(host="nowhere.invalid", port=1, token="wrong", tls=1)
    port = device._server.port
    client = TBDeviceMqttClient.from_settings(
        host="127.0.0.1", port=port, access_token="TOKEN_A", tls=None
    )
    assert arrives(client, device)


def test_further_options_go_to_the_constructor(written, device):
    client = TBDeviceMqttClient.from_settings(strict=False, quality_of_service=0, queue_size=3)
    with client:
        client.send_telemetry({"a": 1, "bad": None})
        run_until(client, lambda: device.telemetry)
    assert device.messages[0][2] == 0
    assert client.stats["left_out"] == 1


def test_user_name_and_password_go_without_a_token(server, settings):
    settings(host="127.0.0.1", port=server.port)
    other = server.add_device("Basic", username="user", password="word")
    client = TBDeviceMqttClient.from_settings(username="user", password="word")
    assert arrives(client, other)


@pytest.mark.parametrize("port", ["garbage", "0", "65536", "-1", "1883.5"])
def test_a_port_that_is_none_is_refused(written, port):
    written(port=port)
    with pytest.raises(ValueError, match="port"):
        TBDeviceMqttClient.from_settings()


def test_an_unknown_option_is_refused(written):
    with pytest.raises(TypeError):
        TBDeviceMqttClient.from_settings(colour="red")


def test_tls_may_be_switched_off(written, device):
    written(tls="0")
    assert arrives(TBDeviceMqttClient.from_settings(), device)


@pytest.mark.parametrize("name", ["tls", "token"])
def test_a_setting_that_is_present_but_empty_is_refused_by_its_name(written, name):
    written(**{name: ""})
    with pytest.raises(ValueError, match="THINGSBOARD_" + name.upper()):
        TBDeviceMqttClient.from_settings()


@pytest.mark.parametrize("tls", ["False", "no", "2", " "])
def test_a_setting_of_tls_that_says_neither_yes_nor_no_nor_a_file_is_refused(written, tls):
    written(tls=tls)
    with pytest.raises(ValueError, match="THINGSBOARD_TLS"):
        TBDeviceMqttClient.from_settings()


def test_tls_may_be_the_path_of_a_ca_file(settings, tls_server, certificates):
    device = tls_server.add_device("Device A", token="TOKEN_A")
    settings(host="localhost", port=tls_server.port, token="TOKEN_A", tls=certificates.ca)
    assert arrives(TBDeviceMqttClient.from_settings(), device)


@pytest.mark.parametrize("tls", ["1", "true"])
def test_tls_may_trust_the_authorities_of_the_system(settings, tls_server, tls):
    settings(host="localhost", port=tls_server.port, token="TOKEN_A", tls=tls)
    with pytest.raises(OSError, match="certificate"):  # those have not signed this server
        TBDeviceMqttClient.from_settings().connect()


# --- the constructor ---

POSITIONAL = (
    "host",
    "port",
    "access_token",
    "quality_of_service",
    "client_id",
    "network_adapter",
)


def test_the_arguments_of_the_reference_sdk_come_first_and_all_others_by_name():
    parameters = inspect.signature(TBDeviceMqttClient).parameters
    assert tuple(parameters)[: len(POSITIONAL)] == POSITIONAL
    for name in list(parameters)[len(POSITIONAL) :]:
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_arguments_may_be_given_by_position(server, device):
    adapter = Adapter()
    client = TBDeviceMqttClient("127.0.0.1", server.port, "TOKEN_A", 0, "my-id", adapter)
    with client:
        client.send_telemetry({"a": 1})
        run_until(client, lambda: device.messages)
    assert device.messages[0][2] == 0
    assert adapter.pools == 1


class Adapter:
    """A network adapter of the reference SDK."""

    def __init__(self):
        self.pools = 0

    def get_socket_pool(self):
        import socket

        self.pools += 1
        return socket

    def get_ssl_context(self):
        return None


@pytest.mark.parametrize("convert", [int, str])
def test_the_port_may_be_digits_in_a_string(server, device, convert):
    client = TBDeviceMqttClient("127.0.0.1", convert(server.port), "TOKEN_A")
    assert arrives(client, device)


def test_the_host_may_be_a_name(server, device):
    assert arrives(TBDeviceMqttClient("localhost", server.port, "TOKEN_A"), device)


@pytest.mark.parametrize(
    "port",
    ["garbage", "", " ", "0", "65536", "1883x", 0, -1, 65536, 1883.5, True, [], {}, b"x"],
)
def test_a_port_that_can_not_be_is_refused(port):
    with pytest.raises(ValueError, match="port"):
        TBDeviceMqttClient("127.0.0.1", port, "TOKEN_A")


@pytest.mark.parametrize("host", [None, "", 3, b"raw", "mqtt://host", "http://host/", "host/path"])
def test_a_host_that_can_not_be_is_refused(host):
    with pytest.raises((TypeError, ValueError), match="host"):
        TBDeviceMqttClient(host, 1883, "TOKEN_A")


@pytest.mark.parametrize(
    "options, named",
    [
        ({"quality_of_service": 2}, "quality_of_service"),
        ({"quality_of_service": "1"}, "quality_of_service"),
        ({"keep_alive": -1}, "keep_alive"),
        ({"keep_alive": 65536}, "keep_alive"),
        ({"keep_alive": "60"}, "keep_alive"),
        ({"queue_size": 0}, "queue_size"),
        ({"queue_size": "64"}, "queue_size"),
        ({"queue_bytes": 0}, "queue_bytes"),
        ({"queue_bytes": None}, "queue_bytes"),
        ({"access_token": "T", "username": "u"}, "access_token"),
        ({"access_token": "T", "password": "p"}, "access_token"),
        ({"password": "p"}, "username"),
        ({"tls": 5}, "tls"),
        ({"access_token": ""}, "access_token"),
        ({"username": ""}, "username"),
        ({"rejoin": 5}, "rejoin"),
        ({"logger": print}, "warning"),
    ],
)
def test_an_argument_that_can_not_be_is_refused_by_name(options, named):
    with pytest.raises((TypeError, ValueError, AttributeError), match=named):
        TBDeviceMqttClient("127.0.0.1", **options)


def test_an_error_of_the_constructor_tells_no_secret():
    with pytest.raises(ValueError) as caught:
        TBDeviceMqttClient("host", access_token="S3CRET", username="user", password="PASSW0RD")
    assert "S3CRET" not in str(caught.value)
    assert "PASSW0RD" not in str(caught.value)


@pytest.mark.parametrize("value", [12345, b"12345", ["12345"], True])
@pytest.mark.parametrize("name", ["access_token", "username", "password", "client_id"])
def test_a_credential_that_is_no_text_is_refused_by_name_without_telling_it(name, value):
    options = {"username": "user"} if name == "password" else {}
    with pytest.raises(TypeError, match=name) as caught:
        TBDeviceMqttClient("127.0.0.1", **options, **{name: value})
    assert "12345" not in str(caught.value)


def test_a_ca_file_that_is_missing_is_told():
    with pytest.raises(ValueError, match=r"tls .*\(2, 'No such file or directory'\)"):
        TBDeviceMqttClient("host", access_token="T", tls="/no/such/file.pem")


def test_tls_may_be_a_context_of_ones_own(tls_server, certificates):
    device = tls_server.add_device("Device A", token="TOKEN_A")
    context = ssl.create_default_context(cafile=certificates.ca)
    client = TBDeviceMqttClient("localhost", tls_server.port, "TOKEN_A", tls=context)
    assert arrives(client, device)


def test_a_client_id_of_ones_own_is_told_to_the_server(server):
    by_id = server.add_device("By id", client_id="my-id")
    assert arrives(TBDeviceMqttClient("127.0.0.1", server.port, client_id="my-id"), by_id)


def test_nothing_is_opened_before_connect(server):
    client = new_client(server)
    client.send_telemetry({"a": 1})
    client.subscribe_to_all_attributes(Notes())
    client.check_for_msg()
    assert (client.state, client.connected) == ("stopped", False)
    assert server.accepted == 0


def test_attributes_have_their_defaults(server):
    client = new_client(server)
    assert client.connect_timeout == 5
    assert client.request_timeout == 10
    assert client.max_message_bytes > 1024
    assert client.clean_session is True
    assert client.user_data is None
    assert client.idle is None
    assert client.last_error is None
    assert set(client.stats.values()) == {0}


def test_two_clients_share_nothing(server, device):
    second = server.add_device("Device B", token="TOKEN_B")
    logger = LogNotes()
    with new_client(server) as one, new_client(server, access_token="TOKEN_B") as two:
        one.send_telemetry({"a": 1})
        one.rpc("method")(Notes("one"))
        two.rpc("method")(Notes("two"))
        one.shared.setdefault("key", 1)
        two._logger = logger.warning
        replies = [each.call_rpc("method") for each in (device, second)]

        def all_done():
            two.check_for_msg()
            return all(reply.done() for reply in replies)

        run_until(one, all_done)
        assert "key" not in two.shared
    assert [reply.result() for reply in replies] == ["one", "two"]
    assert second.telemetry == []


def test_a_handler_that_raises_is_shown_as_an_uncaught_exception_is(server, device, capfd):
    with new_client(server) as client:
        client.connect()
        client.on_publish = lambda too, few: None
        client.send_telemetry({"a": 1})
        run_until(client, lambda: client.stats["handler_errors"] == 1)
    words = capfd.readouterr().err
    assert "Traceback" in words
    assert "TypeError: " in words
    assert "takes 2 positional arguments but 4 were given" in words


@pytest.mark.parametrize("is_told", (True, False))
def test_what_a_forgotten_connect_loses_is_said_once(server, capfd, is_told):
    client = new_client(server, queue_size=2, logger=None if is_told else False)
    client.on_drop = dropped = Notes()
    for number in range(5):
        client.send_telemetry({"secret payload": number})
    client.check_for_msg()
    words = capfd.readouterr().out
    assert words.count("connect() was not called") == is_told
    assert "secret" not in words
    assert {call[5] for call in dropped.calls} == {
        "queue full: 2 messages, queue_size=2: connect() was not called"
    }


def test_messages_that_no_poll_takes_are_mentioned_once(server, device, capfd, monkeypatch):
    monkeypatch.setattr("tb_device_mqtt._UNATTENDED_MS", 10)
    with new_client(server) as client:
        client.subscribe_to_all_attributes(Notes())
        client.connect()
        device.push_attributes({"a": 1})
        for number in range(40):
            client.send_telemetry({"n": number})
            time.sleep(0.005)
    assert capfd.readouterr().out.count("call check_for_msg() in your loop") == 1


def test_a_second_thread_is_told_what_to_do(server, device):
    with new_client(server) as client:
        client.connect()
        errors = []

        def send():
            for call in (
                lambda: client.send_telemetry({"a": 1}),
                client.check_for_msg,
                client.connect,
                client.disconnect,
            ):
                try:
                    call()
                except RuntimeError as error:
                    errors.append(str(error))

        thread = threading.Thread(target=send)
        thread.start()
        thread.join()
        assert len(errors) == 4
        assert all("queue.Queue" in error for error in errors)
        assert client.connected
        assert client.flush(1)
    assert len(device.telemetry) == 0


def test_without_a_logger_the_console_shows_nothing_else(server, device, capfd):
    device.push_attributes({"a": 1})
    with new_client(server, logger=False) as client:
        client.rpc("method")(Notes(RuntimeError("mine")))
        client.request_attributes(callback=Notes())
        reply = device.call_rpc("method")
        run_until(client, reply.done)
        device.disconnect()
        run_until(client, lambda: not client.connected)
    assert capfd.readouterr() == ("", "")
