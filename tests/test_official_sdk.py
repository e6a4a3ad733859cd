# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What goes wrong in ThingsBoard's own CircuitPython SDK does not go wrong here.

That is tb_device_mqtt.py of github.com/thingsboard/CircuitPython_thingsboard-client-sdk at commit
adc83ad, with MiniMQTT 8.1.0; every fault was seen there. Programs that were written for it run with
ours, so each test is such a program.
"""

import json
import time

import pytest

from clients import (
    ATTRIBUTES,
    RPC_REQUEST,
    TELEMETRY,
    LogNotes,
    Notes,
    flush,
    new_client,
    offline_client,
    online_client,
    packets,
    subscribed,
    values,
)
from faults.scripted_broker import SUBSCRIBE, ScriptedBroker
from helpers import free_port, run_for, run_until
from local_server.mqtt311 import publish
from tb_device_mqtt import TBDeviceMqttClient, TBError, TBTimeoutError

# --- connecting ---


def test_connect_does_not_swallow_exceptions_and_print_them_twice(capsys):
    client = TBDeviceMqttClient("127.0.0.1", free_port(), "TOKEN_A")
    with pytest.raises(OSError, match="no server is listening"):
        client.connect()
    client.send_telemetry({"n": 1})  # waits, instead of failing far away from the cause
    client.disconnect()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("clean_session", (True, False))
def test_connect_does_not_return_the_same_for_success_and_failure(server, device, clean_session):
    client = new_client(server)
    client.clean_session = clean_session
    assert client.connect() is True
    client.disconnect()


def test_a_port_in_a_string_does_not_fail_in_silence(server, device):
    with TBDeviceMqttClient("127.0.0.1", str(server.port), "TOKEN_A") as client:
        assert client.connected
    with pytest.raises(ValueError, match="port must be a number"):
        TBDeviceMqttClient("127.0.0.1", "YOUR_PORT", "TOKEN_A")


def test_port_8883_does_not_speak_plain_text(tls_server, certificates):
    device = tls_server.add_device("Device A", token="TOKEN_A")
    options = {"port": tls_server.port, "access_token": "TOKEN_A", "tls": certificates.ca}
    with TBDeviceMqttClient("localhost", **options) as client:
        client.send_telemetry({"n": 1})
        flush(client)
    assert values(device) == [{"n": 1}]


def test_four_subscriptions_do_not_take_four_round_trips(server, device):
    with offline_client(server) as client:
        client.subscribe_to_all_attributes(Notes())
        client.set_server_side_rpc_request_handler(Notes())
        client.request_attributes(callback=Notes())
        client.send_rpc_call("getTime", callback=Notes())
        client.connect()
        flush(client)
        assert len(device.subscriptions) == 4
        assert packets(server).count("SUBSCRIBE") == 1


def test_a_subscription_that_fails_in_connect_does_not_break_the_next_connect():
    def hang_up_at_the_first_subscribe(connection):
        connection.accept()
        if connection.number == 1:
            connection.wait_for(SUBSCRIBE)
            connection.fin()
        else:
            connection.answer_everything()

    with ScriptedBroker(hang_up_at_the_first_subscribe) as broker, offline_client(broker) as client:
        client.subscribe_to_all_attributes(Notes())
        client.connect(timeout=0)
        run_until(client, lambda: client.last_error is not None)
        assert client.connect() is True
        client.send_telemetry({"n": 1})
        flush(client)


def test_the_release_does_connect_and_has_the_documented_methods(server, device):
    with online_client(server, quality_of_service=None, client_id=None) as client:
        documented = (
            "connect",
            "disconnect",
            "check_for_msg",
            "send_telemetry",
            "send_attributes",
            "request_attributes",
            "subscribe_to_attribute",
            "subscribe_to_all_attributes",
            "unsubscribe_from_attribute",
            "set_server_side_rpc_request_handler",
            "send_rpc_reply",
            "send_rpc_call",
            "claim_device",
        )
        assert [name for name in documented if not callable(getattr(client, name, None))] == []


# --- the connection ---


def test_check_for_msg_does_not_block_for_a_second(server, device):
    with online_client(server) as client:
        started = time.perf_counter()
        for _ in range(100):
            client.check_for_msg()
        assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("rst", (False, True), ids=("fin", "rst"))
def test_a_drop_is_not_spun_on_then_raised_and_connected_does_not_stay_true(server, device, rst):
    with online_client(server) as client:
        device.disconnect(rst)
        longest_ms = run_until(client, lambda: not client.connected, timeout=1)
        assert longest_ms < 500
        run_until(client, lambda: client.connected)  # by itself
        client.send_telemetry({"back": True})
        flush(client)
    assert values(device) == [{"back": True}]


def test_disconnect_when_the_link_is_down_does_not_raise_and_leave_connected_true(server, device):
    client = new_client(server)
    client.connect()
    server.stop_listening()
    client.disconnect()
    client.disconnect()
    assert client.connected is False


# --- RPC ---


def test_an_exception_in_a_handler_does_not_escape_and_come_again(server, device):
    called = Notes(ValueError("a bug of mine"))
    with online_client(server) as client:
        client.set_server_side_rpc_request_handler(called)
        reply = device.call_rpc("get")
        run_until(client, reply.done)
        assert reply.result() == {"error": "ValueError: a bug of mine"}
        device.disconnect()
        run_until(client, lambda: not client.connected)
        run_until(client, lambda: client.connected)
        run_for(client, 0.05)
    assert len(called.calls) == 1


@pytest.mark.parametrize("payload", (b"{", b"\xff\xfe\xfd", b"[1, 2]", b"5", b"null", b""))
@pytest.mark.parametrize("topic", (ATTRIBUTES, RPC_REQUEST + "7"))
def test_a_payload_that_makes_no_sense_does_not_escape_from_the_poll(
    server, device, topic, payload
):
    with online_client(server) as client:
        client.set_server_side_rpc_request_handler(Notes())
        client.subscribe_to_all_attributes(Notes())
        subscribed(client, device, ATTRIBUTES)
        server.inject(publish(topic, payload, 1, 999))
        run_until(client, lambda: client.stats["unexpected"] == 1)
        run_until(client, lambda: "PUBACK" in packets(server))
        assert device.connects == 1


def test_replies_inside_handlers_do_not_nest_twenty_deep(server, device):
    running, most = [], []
    replies = [device.call_rpc("get", number) for number in range(20)]
    with offline_client(server) as client:

        def answer(request_id, body):
            running.append(request_id)
            most.append(len(running))
            client.send_rpc_reply(request_id, body["params"])
            client.check_for_msg()
            running.pop()

        client.set_server_side_rpc_request_handler(answer)
        client.connect()
        run_until(client, lambda: all(reply.done() for reply in replies))
    assert [reply.result() for reply in replies] == list(range(20))
    assert max(most) == 1


def test_an_rpc_during_connect_does_not_eat_the_suback(server, device):
    server.faults.push_before_suback = True
    reply = device.call_rpc("get", 5)
    with offline_client(server) as client:

        def answer(request_id, body):
            client.send_rpc_reply(request_id, body["params"])

        client.set_server_side_rpc_request_handler(answer)
        started = time.monotonic()
        client.connect()
        run_until(client, reply.done)
        assert time.monotonic() - started < 2
    assert reply.result() == 5


def test_an_rpc_before_there_is_a_handler_is_not_acknowledged_and_dropped(server, device):
    reply = device.call_rpc("get", 5)
    with online_client(server) as client:
        run_for(client, 0.1)
        assert "PUBACK" not in packets(server)
        client.set_server_side_rpc_request_handler(lambda request_id, body: body["params"])
        run_until(client, reply.done)
    assert reply.result() == 5


def test_the_request_id_is_not_a_string(server, device):
    called = Notes({})
    with online_client(server) as client:
        client.set_server_side_rpc_request_handler(called)
        reply = device.call_rpc("get")
        run_until(client, reply.done)
    assert called.calls[0] == (reply.rpc_id, {"method": "get", "params": None})
    assert isinstance(called.calls[0][0], int)


# --- requests ---


def test_a_callback_of_none_does_not_raise_when_the_answer_comes(server, device):
    device.on_client_rpc = lambda method, params: params
    with online_client(server) as client:
        client.request_attributes(client_keys=["a"], shared_keys=["b"], callback=None)
        client.send_rpc_call("echo", 5, None)
        run_until(client, lambda: client.stats["received"] == 2)
        assert client.stats["handler_errors"] == 0


def test_an_answer_that_nobody_waits_for_does_not_raise_key_error(server, device):
    device.on_client_rpc = lambda method, params: params
    server.faults.response_twice = True
    answers = Notes()
    with online_client(server) as client:
        client.request_attributes(callback=answers)
        client.send_rpc_call("echo", 5, answers)
        server.inject(publish("v1/devices/me/attributes/response/77", b"{}", 0, 0))
        server.inject(publish("v1/devices/me/rpc/response/77", b"{}", 0, 0))
        run_until(client, lambda: client.stats["received"] == 6)
        assert client.stats["unexpected"] == 4
    assert len(answers.calls) == 2


def test_requests_without_answer_do_not_wait_for_ever_and_pile_up(server, device):
    answers = Notes()
    server.faults.silent = True
    with offline_client(server) as client:
        client.request_timeout = 0.1
        with pytest.raises(TBError):
            for _ in range(200):
                client.send_rpc_call("getTime", callback=answers)
        asked = client.pending_messages_count + client.stats["dropped"]
        assert asked < 200
        run_until(client, lambda: len(answers.calls) >= asked)
    assert len(answers.calls) == asked
    assert all(isinstance(call[2], TBTimeoutError) for call in answers.calls)


def test_one_key_in_a_string_is_not_split_into_letters(server, device):
    with online_client(server) as client:
        client.request_attributes(client_keys="temp", shared_keys="mode")
        flush(client)
    assert json.loads(device.messages[-1][1]) == {"clientKeys": "temp", "sharedKeys": "mode"}


# --- telemetry and attributes ---


def test_quality_of_service_is_not_ignored(server, device):
    with online_client(server) as client:
        client.send_telemetry({"n": 1})
        client.send_attributes({"n": 1})
        client.send_telemetry({"n": 2}, quality_of_service=0)
        run_until(client, lambda: len(device.messages) == 3)
    assert [message[2] for message in device.messages] == [1, 1, 0]
    with online_client(server, quality_of_service=0) as client:
        client.send_telemetry({"n": 3})
        run_until(client, lambda: {"n": 3} in values(device))
    assert device.messages[-1][0] == TELEMETRY
    assert device.messages[-1][2] == 0


def test_a_deleted_attribute_does_not_go_unheard(server, device):
    mode, interval = Notes(), Notes()
    device.push_attributes({"mode": "auto", "interval": 5})
    with online_client(server) as client:
        client.subscribe_to_attribute("mode", mode)
        client.subscribe_to_attribute("interval", interval)
        subscribed(client, device, ATTRIBUTES)
        device.delete_attributes(["mode"])
        run_until(client, lambda: mode.calls)
    assert mode.firsts == [{"deleted": ["mode"]}]
    assert interval.calls == []


def test_one_function_on_two_keys_is_not_called_twice(server, device):
    changed = Notes()
    with online_client(server) as client:
        client.subscribe_to_attribute("mode", changed)
        client.subscribe_to_attribute("interval", changed)
        subscribed(client, device, ATTRIBUTES)
        device.push_attributes({"mode": "auto", "interval": 5})
        run_until(client, lambda: changed.calls)
        run_for(client, 0.05)
    assert changed.firsts == [{"mode": "auto", "interval": 5}]


def test_no_secret_is_printed_and_nothing_else_either(server, device, capsys):
    logger = LogNotes()
    secrets = ("TOKEN_A", "claim-me", "vault-code", "door-code")
    with online_client(server, logger=logger) as client:
        client.subscribe_to_all_attributes(Notes())
        client.rpc("open")(lambda code: {"code": code})
        subscribed(client, device, ATTRIBUTES)
        client.claim_device("claim-me", 60000)
        device.push_attributes({"vault": "vault-code"})
        reply = device.call_rpc("open", "door-code")
        run_until(client, reply.done)
        server.inject(b"\x00\x00")
        run_until(client, lambda: not client.connected)
    assert capsys.readouterr() == ("", "")
    assert logger.text  # the loss is there
    assert [secret for secret in secrets if secret in logger.text] == []
