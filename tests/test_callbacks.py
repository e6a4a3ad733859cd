# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The five callbacks and `idle`: their arguments, their order, and what they may not break."""

import pytest

from clients import (
    ATTRIBUTES,
    ATTRIBUTES_REQUEST,
    TELEMETRY,
    LogNotes,
    Notes,
    lose,
    new_client,
    offline_client,
    online_client,
    subscribed,
    values,
)
from helpers import free_port, run_for, run_until
from tb_device_mqtt import TBDeviceMqttClient, TBRefusedError

SOON_S = 0.1
CALLBACKS = ("on_connect", "on_disconnect", "on_state", "on_publish", "on_drop")


def notes_of(client, *names):
    """`Notes` for the callbacks of these names, which are set."""
    notes = [Notes() for _ in names]
    for name, each in zip(names, notes):
        setattr(client, name, each)
    return notes


# --- arguments ---


def test_on_connect_gets_client_user_data_flags_and_code(offline):
    (connected,) = notes_of(offline, "on_connect")
    offline.user_data = data = object()
    offline.connect()
    assert connected.calls == [(offline, data, 0, 0)]


def test_on_connect_hears_of_a_refusal_with_its_code(server, device):
    client = new_client(server, access_token="UNKNOWN")
    connected, disconnected = notes_of(client, "on_connect", "on_disconnect")
    client.connect(timeout=0)
    run_until(client, lambda: connected.calls)
    client.disconnect()
    assert connected.calls == [(client, None, 0, 5)]
    assert disconnected.calls == []


def test_on_connect_is_told_after_each_connect(offline, device):
    (connected,) = notes_of(offline, "on_connect")
    offline.connect()
    lose(offline, device)
    run_until(offline, lambda: len(connected.calls) == 2)
    offline.disconnect()
    offline.connect()
    assert len(connected.calls) == 3


def test_on_disconnect_gets_code_0_after_disconnect(client):
    (disconnected,) = notes_of(client, "on_disconnect")
    client.user_data = data = object()
    client.disconnect()
    assert disconnected.calls == [(client, data, 0)]
    client.disconnect()
    assert len(disconnected.calls) == 1


@pytest.mark.parametrize("rst", [False, True])
def test_on_disconnect_gets_code_1_when_the_connection_was_lost(client, device, rst):
    (disconnected,) = notes_of(client, "on_disconnect")
    device.disconnect(rst)
    run_until(client, lambda: disconnected.calls)
    assert disconnected.calls == [(client, None, 1)]


def test_on_disconnect_is_not_told_of_attempts_that_failed(server, offline):
    connected, disconnected = notes_of(offline, "on_connect", "on_disconnect")
    server.stop_listening()
    with pytest.raises(OSError, match="no server is listening"):
        offline.connect()
    run_for(offline, SOON_S)
    offline.disconnect()
    assert connected.calls == disconnected.calls == []


def test_on_state_is_told_each_change_and_why(offline, device):
    (changed,) = notes_of(offline, "on_state")
    offline.user_data = data = object()
    offline.connect()
    assert changed.calls == [
        (offline, data, state, None) for state in ("waiting", "connecting", "online")
    ]
    del changed.calls[:]
    lose(offline, device)
    run_until(offline, lambda: offline.connected)
    states = [(state, type(reason)) for _, _, state, reason in changed.calls]
    assert states == [
        ("waiting", OSError),
        ("connecting", type(None)),
        ("online", type(None)),
    ]
    del changed.calls[:]
    offline.disconnect()
    assert changed.calls == [(offline, data, "stopped", None)]


def test_on_state_is_told_why_an_attempt_failed(server, device):
    with offline_client(server, access_token="WRONG") as client:
        (changed,) = notes_of(client, "on_state")
        client.connect(timeout=0)
        run_until(client, lambda: len(changed.calls) == 3)
    (state, reason) = changed.calls[2][2:]
    assert state == "waiting"
    assert isinstance(reason, TBRefusedError)
    assert reason is client.last_error


def test_connecting_is_told_before_the_attempt_that_blocks(offline):
    seen = []

    class Pool:
        """The network of this computer; notes what had been told when it was asked."""

        def __getattr__(self, name):
            import socket

            if name == "getaddrinfo":
                seen.append([call[2] for call in changed.calls])
            return getattr(socket, name)

    client = TBDeviceMqttClient("127.0.0.1", free_port(), "T", socket_pool=Pool())
    (changed,) = notes_of(client, "on_state")
    with pytest.raises(OSError, match="no server is listening"):
        client.connect()
    client.disconnect()
    assert seen[0] == ["waiting", "connecting"]


def test_on_publish_gets_client_user_data_topic_and_message_id(client, device):
    (published,) = notes_of(client, "on_publish")
    client.user_data = data = object()
    ids = [
        client.send_telemetry({"a": 1}),
        client.send_attributes({"a": 1}),
        client.publish("any/topic", b""),
    ]
    run_until(client, lambda: len(published.calls) == 3)
    topics = (TELEMETRY, ATTRIBUTES, "any/topic")
    assert published.calls == [
        (client, data, topic, message_id) for topic, message_id in zip(topics, ids)
    ]


def test_on_publish_waits_for_the_acknowledgement(server, client, device):
    server.faults.puback_delay = 0.2
    (published,) = notes_of(client, "on_publish")
    client.send_telemetry({"a": 1})
    run_until(client, lambda: device.telemetry)
    assert published.calls == []
    run_until(client, lambda: published.calls)


@pytest.mark.parametrize("order", ["reverse", "shuffle"])
def test_on_publish_is_told_for_each_whatever_the_order_of_the_acknowledgements(
    server, client, device, order
):
    server.faults.puback_order = order
    (published,) = notes_of(client, "on_publish")
    ids = [client.send_telemetry({"a": number}) for number in range(30)]
    run_until(client, lambda: len(published.calls) == 30)
    assert sorted(call[3] for call in published.calls) == sorted(ids)
    assert [row["a"] for row in values(device)] == list(range(30))


def test_on_publish_is_told_once_when_the_acknowledgement_comes_twice(server, client, device):
    server.faults.puback_twice = True
    (published,) = notes_of(client, "on_publish")
    for number in range(5):
        client.send_telemetry({"a": number})
    assert client.flush(5)
    run_for(client, SOON_S)
    assert len(published.calls) == 5
    assert client.connected


def test_on_drop_gets_what_will_not_be_sent_and_why(server, device):
    with offline_client(server, queue_size=2) as client:
        (dropped,) = notes_of(client, "on_drop")
        client.user_data = data = object()
        ids = [client.send_telemetry({"a": number}) for number in range(3)]
        client.check_for_msg()
    ((told, told_data, topic, message_id, payload, reason),) = dropped.calls
    assert (told, told_data, topic, message_id) == (client, data, TELEMETRY, ids[0])
    assert payload == b'{"a":0}'
    assert "full" in reason


def test_on_drop_tells_the_number_of_a_request_for_which_there_was_no_room(server, device):
    with online_client(server, queue_size=1) as client:
        (dropped,) = notes_of(client, "on_drop")
        server.faults.mute_puback = True
        client.send_attributes({"a": 1})
        request_id = client.request_attributes("a")
        client.check_for_msg()
    assert dropped.calls[0][2] == ATTRIBUTES_REQUEST + str(request_id)


def test_idle_is_called_while_the_client_waits(server, offline, device):
    server.faults.connack_delay = 0.05
    offline.idle = idle = Notes()
    offline.connect()
    counts = [len(idle.calls)]
    offline.wait_for_msg(0.05)
    counts.append(len(idle.calls))
    server.faults.puback_delay = 0.05
    offline.send_telemetry({"a": 1})
    assert offline.flush(5)
    counts.append(len(idle.calls))
    assert 0 < counts[0] < counts[1] < counts[2]
    assert set(idle.calls) == {()}
    run_for(offline, SOON_S)
    assert len(idle.calls) == counts[2]


# --- user_data ---


def test_user_data_may_be_changed_at_any_time(client, device):
    (published,) = notes_of(client, "on_publish")
    for data in (None, "text", {"a": 1}):
        client.user_data = data
        client.send_telemetry({"a": 1})
        run_until(client, lambda: published.calls)
        assert published.calls.pop()[1] is data


def test_callbacks_may_be_taken_away(client, device):
    notes = notes_of(client, *CALLBACKS)
    for name in CALLBACKS:
        setattr(client, name, None)
    client.send_telemetry({"a": 1})
    assert client.flush(5)
    lose(client, device)
    run_until(client, lambda: client.connected)
    assert [each.calls for each in notes] == [[]] * len(CALLBACKS)


# --- order ---


def test_what_happened_is_told_in_order(server, offline, device):
    order = []
    offline.on_connect = lambda *_: order.append("connect")
    offline.on_disconnect = lambda *_: order.append("disconnect")
    offline.on_publish = lambda *_: order.append("publish")
    offline.subscribe_to_all_attributes(lambda result, *_: order.append(result["n"]))
    offline.connect()
    subscribed(offline, device, ATTRIBUTES)
    offline.send_telemetry({"a": 1})
    run_until(offline, lambda: "publish" in order)
    for number in range(10):
        device.push_attributes({"n": number})
    run_until(offline, lambda: 9 in order)
    lose(offline, device)
    run_until(offline, lambda: order.count("connect") == 2)
    offline.disconnect()
    expected = ["connect", "publish", *range(10), "disconnect", "connect", "disconnect"]
    assert order == expected


def test_connected_agrees_with_what_is_told(offline, device):
    seen = []
    offline.on_connect = lambda client, *_: seen.append(("connect", client.connected))
    offline.on_disconnect = lambda client, *_: seen.append(("disconnect", client.connected))
    offline.connect()
    lose(offline, device)
    run_until(offline, lambda: offline.connected)
    offline.disconnect()
    assert seen == [("connect", True), ("disconnect", False)] * 2


def test_acknowledgements_are_told_in_order_of_the_messages(client, device):
    (published,) = notes_of(client, "on_publish")
    ids = [client.send_telemetry({"a": number}) for number in range(50)]
    run_until(client, lambda: len(published.calls) == 50)
    assert [call[3] for call in published.calls] == ids


def test_drops_that_fill_the_queue_of_events_hide_no_change_of_state(server, device):
    with online_client(server, queue_size=10) as client:
        dropped, disconnected, changed = notes_of(client, "on_drop", "on_disconnect", "on_state")
        server.faults.silent = True
        for number in range(500):
            client.send_telemetry({"a": number})
        client.disconnect()
        client.check_for_msg()
    assert 0 < len(dropped.calls) <= client.stats["dropped"] == 490
    assert disconnected.calls == [(client, None, 0)]
    assert [call[2] for call in changed.calls] == ["stopped"]


# --- from inside ---


def test_on_connect_may_subscribe_and_send(offline, device):
    notes = Notes()

    def on_connect(client, *_):
        client.subscribe_to_all_attributes(notes)
        client.send_telemetry({"hello": 1})

    offline.on_connect = on_connect
    offline.connect()
    subscribed(offline, device, ATTRIBUTES)
    device.push_attributes({"a": 1})
    run_until(offline, lambda: notes.calls and device.telemetry)
    assert values(device) == [{"hello": 1}]


def test_on_disconnect_may_connect_again(client, device):
    client.on_disconnect = lambda client, *_: client.connect(timeout=0)
    client.disconnect()
    run_until(client, lambda: client.connected)
    assert device.connects == 2
    client.on_disconnect = None


def test_on_state_may_disconnect(offline, device):
    def on_state(client, _data, state, _reason):
        if state == "connecting":
            client.disconnect()

    offline.on_state = on_state
    assert offline.connect(timeout=0) is False
    run_for(offline, SOON_S)
    assert offline.state == "stopped"
    assert device.connects == 0


def test_what_on_drop_sends_to_a_full_queue_is_counted_and_not_told_again(server, device):
    with offline_client(server, queue_size=3) as client:
        (dropped,) = notes_of(client, "on_drop")

        def on_drop(client, _data, _topic, _message_id, payload, _reason):
            dropped(payload)
            if len(dropped.calls) < 20:
                client.send_telemetry({"again": len(dropped.calls)})

        client.on_drop = on_drop
        for number in range(4):
            client.send_telemetry({"a": number})
        run_for(client, SOON_S)
        assert dropped.firsts == [b'{"a":0}']
        assert client.stats["dropped"] == 2
        assert client.pending_messages_count == 3


def test_on_publish_may_send_the_next(client, device):
    def on_publish(client, *_):
        if len(device.telemetry) < 20:
            client.send_telemetry({"a": len(device.telemetry)})

    client.on_publish = on_publish
    client.send_telemetry({"a": 0})
    run_until(client, lambda: len(device.telemetry) == 20)
    assert [row["a"] for row in values(device)] == list(range(20))


# --- exceptions ---


@pytest.mark.parametrize("name", CALLBACKS)
def test_an_exception_in_a_callback_is_counted_and_stops_nothing(server, device, name):
    logger = LogNotes()
    with offline_client(server, queue_size=2, logger=logger) as client:
        setattr(client, name, Notes(ValueError("mine")))
        for number in range(3):
            client.send_telemetry({"a": number})
        assert client.connect() is True
        assert client.flush(5)
        client.disconnect()
        errors = client.stats["handler_errors"]
        assert errors >= 1
        assert "mine" in logger.text
        setattr(client, name, None)
        client.connect()
        client.send_telemetry({"a": 3})
        assert client.flush(5)
        assert client.stats["handler_errors"] == errors
    assert [row["a"] for row in values(device)] == [1, 2, 3]


def test_the_last_exception_of_a_callback_is_kept(client, device):
    error = ValueError("mine")
    client.on_publish = Notes(error)
    client.send_telemetry({"a": 1})
    run_until(client, lambda: client.stats["handler_errors"])
    assert client.last_error is error


def test_a_callback_with_the_wrong_arguments_is_counted(client, device):
    client.on_publish = lambda: None
    client.send_telemetry({"a": 1})
    run_until(client, lambda: client.stats["handler_errors"] == 1)
    assert isinstance(client.last_error, TypeError)


def test_an_exception_in_one_callback_keeps_none_of_the_others(client, device):
    (published,) = notes_of(client, "on_publish")
    client.subscribe_to_all_attributes(Notes(RuntimeError("mine")))
    subscribed(client, device, ATTRIBUTES)
    for number in range(5):
        device.push_attributes({"n": number})
        client.send_telemetry({"a": number})
    run_until(client, lambda: len(published.calls) == 5 and client.stats["handler_errors"] == 5)


def test_ctrl_c_in_a_callback_comes_through_and_the_next_poll_goes_on(client, device):
    class CtrlC:
        """Raises once."""

        calls = 0

        def __call__(self, *_):
            self.calls += 1
            if self.calls == 1:
                raise KeyboardInterrupt

    client.on_publish = published = CtrlC()
    for number in range(3):
        client.send_telemetry({"a": number})
    with pytest.raises(KeyboardInterrupt):
        client.flush(5)
    run_until(client, lambda: published.calls == 3)
    assert client.stats["handler_errors"] == 0


def test_what_idle_raises_ends_the_waiting_alone(server, device):
    client = new_client(server)
    server.faults.connack_delay = 0.1
    client.idle = Notes(ValueError("mine"))
    with pytest.raises(ValueError, match="mine"):
        client.connect()
    client.idle = None
    run_until(client, lambda: client.connected)
    client.disconnect()
