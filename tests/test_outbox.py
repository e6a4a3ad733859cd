# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The outbox: what was handed over arrives, in order and with its time, or is reported."""

import json
import time
import tracemalloc
from unittest import mock

import pytest

import tb_device_mqtt
from clients import (
    ATTRIBUTES,
    RPC_RESPONSE,
    TELEMETRY,
    Clock,
    LogNotes,
    Notes,
    flush,
    lose,
    numbers,
    offline_client,
    online_client,
    payloads,
    values,
)
from faults.scripted_broker import puback
from helpers import run_for, run_until

SOON_S = 0.1  # how long silence is listened to
LATE_S = 0.2  # readings that waited so long tell their own time
CLOSE_MS = 1500  # how far a time may be off: a busy computer
UNSET_S = 946684800  # where the clock of a board begins: the year 2000
PACKET_IDS = 32767  # of messages; the others are for SUBSCRIBE


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def times(device):
    return [ts for ts, _ in device.telemetry]


def connect_and_flush(client):
    client.connect()
    assert client.flush(10)


def bare_readings(device):
    """Whether no telemetry told a time of its own."""
    return b'"ts"' not in b"".join(payload for _, payload, _, _ in device.messages)


# --- order, over losses ---


def test_what_is_sent_while_offline_arrives_in_order(server, client, device):
    server.stop_listening()
    for number in range(40):
        client.send_telemetry({"n": number})
        client.check_for_msg()
    assert client.pending_messages_count == 40
    server.listen_again()
    flush(client)
    assert [row["n"] for row in values(device)] == list(range(40))
    assert client.stats["dropped"] == 0


@pytest.mark.parametrize("rst", [False, True])
def test_nothing_is_lost_and_the_order_kept_however_often_the_link_is(client, device, rst):
    client._link.backoff_ms = 1
    for number in range(200):
        client.send_telemetry({"n": number})
        client.check_for_msg()
        if number % 20 == 7:
            device.disconnect(rst)
        if client.pending_messages_count > 50:
            assert client.flush(10)
    assert client.flush(10)
    assert numbers(device) == list(range(200))
    assert client.stats["dropped"] == 0
    assert device.connects > 3


def test_all_kinds_of_messages_keep_their_order_over_a_loss(server, client, device):
    server.faults.silent = True
    client.send_telemetry({"n": 0})
    client.send_attributes({"a": 1})
    client.send_rpc_reply(7, "ok")
    client.claim_device("code")
    client.publish("any/topic", "payload")
    client.send_telemetry({"n": 1})
    run_until(client, lambda: server.packets[-1][2] == "PUBLISH")
    server.stop_listening()
    run_until(client, lambda: not client.connected)
    server.faults.silent = False
    server.listen_again()
    flush(client)
    assert [topic for topic, _, _, _ in device.messages] == [
        TELEMETRY,
        ATTRIBUTES,
        RPC_RESPONSE + "7",
        "v1/devices/me/claim",
        "any/topic",
        TELEMETRY,
    ]


def test_what_was_not_acknowledged_is_sent_again_with_dup_in_order(server, client, device):
    server.faults.mute_puback = True
    for number in range(6):
        client.send_attributes({"n": number})
    run_until(client, lambda: len(device.messages) == 6)
    assert not any(dup for _, _, _, dup in device.messages)
    server.faults.mute_puback = False
    lose(client, device)
    flush(client)
    again = device.messages[6:]
    assert [json.loads(payload)["n"] for _, payload, _, _ in again] == list(range(6))
    assert all(dup for _, _, _, dup in again)
    assert client.stats["resent"] == 6


def test_what_was_never_sent_has_no_dup(server, client, device):
    server.stop_listening()
    run_until(client, lambda: not client.connected)
    for number in range(5):
        client.send_attributes({"n": number})
    server.listen_again()
    flush(client)
    assert [dup for _, _, _, dup in device.messages] == [False] * 5
    assert client.stats["resent"] == 0


def test_quality_of_service_0_waits_for_the_link_and_is_sent_once(server, client, device):
    server.stop_listening()
    run_until(client, lambda: not client.connected)
    for number in range(5):
        client.send_attributes({"n": number}, quality_of_service=0)
    assert client.pending_messages_count == 5
    server.listen_again()
    run_until(client, lambda: len(device.messages) == 5)
    run_for(client, SOON_S)
    assert [message[2:] for message in device.messages] == [(0, False)] * 5
    assert client.pending_messages_count == 0


@pytest.mark.parametrize(
    "send",
    [
        lambda client: client.send_telemetry({"n": 1}),
        lambda client: client.send_telemetry({"n": 1}, 0),
        lambda client: client.send_attributes({"n": 1}),
        lambda client: client.send_rpc_reply(7, "ok"),
        lambda client: client.request_attributes(["a"]),
        lambda client: client.send_rpc_call("method"),
        lambda client: client.claim_device("code"),
        lambda client: client.publish("any/topic", "payload"),
    ],
)
def test_online_a_message_leaves_at_once_without_a_poll(client, device, send):
    send(client)
    assert device.wait(lambda device: device.messages)


def test_what_comes_while_the_window_is_full_follows_in_order(server, client, device):
    server.faults.puback_delay = 0.02
    for number in range(60):
        client.send_telemetry({"n": number})
    assert client.flush(10)
    assert [row["n"] for row in values(device)] == list(range(60))
    assert device.connects == 1


@pytest.mark.parametrize("quality_of_service", [0, 1])
def test_what_there_is_no_memory_to_send_stays_queued(
    offline, device, clock, monkeypatch, quality_of_service
):
    offline.on_publish = published = Notes()
    packet, failures = tb_device_mqtt._packet, [MemoryError()]

    def fail_or_build(head, *parts):
        if failures and head & 0xF0 == 0x30:
            raise failures.pop()
        return packet(head, *parts)

    monkeypatch.setattr(tb_device_mqtt, "_packet", fail_or_build)
    for number in range(5):
        offline.send_telemetry({"n": number}, quality_of_service)
    clock.skip(LATE_S)
    connect_and_flush(offline)
    assert failures == []
    run_until(offline, lambda: len(published.calls) == 5)
    assert device.wait(lambda device: len(device.telemetry) == 5)
    assert [row["n"] for row in values(device)] == list(range(5))
    assert offline.stats["sent"] == len(device.messages)


def test_late_readings_go_one_by_one_where_there_is_no_memory_for_more(
    offline, device, clock, monkeypatch
):
    packet = tb_device_mqtt._packet

    def build_small(head, *parts):
        if sum(map(len, parts)) > 150:
            raise MemoryError
        return packet(head, *parts)

    monkeypatch.setattr(tb_device_mqtt, "_packet", build_small)
    for number in range(20):
        offline.send_telemetry({"n": number})
    clock.skip(LATE_S)
    connect_and_flush(offline)
    assert [row["n"] for row in values(device)] == list(range(20))
    assert device.connects == 1


def test_what_was_queued_raises_no_error_that_there_is_no_memory(client, device, monkeypatch):
    packet = tb_device_mqtt._packet
    monkeypatch.setattr(tb_device_mqtt, "_packet", mock.Mock(side_effect=MemoryError))
    assert client.send_telemetry({"n": 1}) == client.send_telemetry({"n": 2}) - 1
    assert client.pending_messages_count == 2
    assert isinstance(client.last_error, MemoryError)
    monkeypatch.setattr(tb_device_mqtt, "_packet", packet)
    assert client.flush(5)
    assert [row["n"] for row in values(device)] == [1, 2]


@pytest.mark.parametrize("order", ["reverse", "shuffle"])
def test_acknowledgements_in_any_order_end_each_its_own_message(server, client, device, order):
    server.faults.puback_order = order
    client.on_publish = published = Notes()
    ids = [client.send_attributes({"n": number}) for number in range(50)]
    assert client.flush(10)
    run_until(client, lambda: len(published.calls) == 50)
    assert sorted(call[3] for call in published.calls) == sorted(ids)
    assert len(device.messages) == 50


@pytest.mark.parametrize("packet_id", [1, 999, 32768, 65535])
def test_an_acknowledgement_of_nothing_is_ignored(server, client, device, packet_id):
    server.inject(puback(packet_id))
    client.send_telemetry({"n": 1})
    assert client.flush(5)
    assert device.connects == 1


# --- the time of capture ---


def test_online_readings_get_the_time_of_the_server(client, device):
    client.send_telemetry({"n": 1})
    assert client.flush(5)
    assert bare_readings(device)


def test_readings_from_offline_tell_when_they_were_taken(offline, device, clock):
    taken_ms = []
    for number in range(5):
        taken_ms.append(clock.time() * 1000)
        offline.send_telemetry({"n": number})
        clock.skip(60)
    connect_and_flush(offline)
    assert numbers(device) == list(range(5))
    assert times(device) == pytest.approx(taken_ms, abs=CLOSE_MS)


def test_a_list_from_offline_tells_times_too(offline, device, clock):
    taken_ms = clock.time() * 1000
    offline.send_telemetry([{"n": number} for number in range(10)])
    clock.skip(3600)
    connect_and_flush(offline)
    assert numbers(device) == list(range(10))
    assert times(device) == pytest.approx([taken_ms] * 10, abs=CLOSE_MS)
    assert times(device) == sorted(set(times(device)))


def test_readings_that_tell_their_time_keep_it(offline, device, clock):
    offline.send_telemetry({"ts": 1700000000123, "values": {"n": 0}})
    offline.send_telemetry([{"ts": 1700000000001, "values": {"n": 1}}, {"n": 2}])
    clock.skip(60)
    connect_and_flush(offline)
    stored = {row["n"]: ts for ts, row in device.telemetry}
    assert (stored[0], stored[1]) == (1700000000123, 1700000000001)
    assert stored[2] == pytest.approx(clock.time() * 1000 - 60000, abs=CLOSE_MS)


def test_a_key_of_the_name_ts_is_no_time(offline, device, clock):
    clock.skip(600)  # so that the server's time is another
    taken_ms = clock.time() * 1000
    offline.send_telemetry({"ts": 5, "n": 0})
    offline.send_telemetry([{"ts": 6, "n": 1}, {"ts": 1700000000007, "values": {"ts": 8, "n": 2}}])
    clock.skip(60)
    connect_and_flush(offline)
    assert values(device) == [{"ts": 5, "n": 0}, {"ts": 6, "n": 1}, {"ts": 8, "n": 2}]
    assert times(device)[:2] == pytest.approx([taken_ms] * 2, abs=CLOSE_MS)
    assert times(device)[2] == 1700000000007


def test_a_reading_that_was_in_flight_tells_its_time_when_it_is_sent_again(
    server, client, device, clock
):
    server.faults.silent = True
    taken_ms = clock.time() * 1000
    client.send_telemetry({"n": 1})
    run_for(client, SOON_S)
    server.stop_listening()
    run_until(client, lambda: not client.connected)
    server.faults.silent = False
    clock.skip(600)
    server.listen_again()
    flush(client)
    assert times(device) == pytest.approx([taken_ms], abs=CLOSE_MS)


def test_a_reading_that_waits_for_room_in_the_window_tells_its_time(server, client, device, clock):
    server.faults.puback_delay = 0.3
    taken_ms = clock.time() * 1000
    for number in range(50):
        client.send_telemetry({"n": number})
    clock.skip(5)
    assert client.flush(10)
    assert [row["n"] for row in values(device)] == list(range(50))
    assert times(device)[-1] == pytest.approx(taken_ms, abs=CLOSE_MS)
    assert device.connects == 1


def test_readings_that_leave_together_each_tell_their_own_time(offline, device):
    for number in range(5):
        offline.send_telemetry({"n": number})
    connect_and_flush(offline)
    assert len(device.messages) == 1
    assert [value for _, value in device.stored("n")] == list(range(5))


def test_readings_from_a_handler_leave_in_the_same_poll_and_are_all_stored(client, device):
    @client.rpc("measure")
    def measure(_):
        for number in range(5):
            client.send_telemetry({"n": number})

    reply = device.call_rpc("measure")
    run_until(client, reply.done)
    assert client.flush(5)
    assert [value for _, value in device.stored("n")] == list(range(5))


def test_without_a_clock_readings_go_without_a_time(offline, device, clock):
    clock.epoch_s = UNSET_S
    for number in range(5):
        offline.send_telemetry({"n": number})
        clock.skip(60)
    before_ms = time.time() * 1000
    connect_and_flush(offline)
    assert bare_readings(device)
    assert numbers(device) == list(range(5))
    assert times(device) == pytest.approx([before_ms] * 5, abs=CLOSE_MS)


def test_a_clock_that_is_set_before_the_reconnect_gives_the_right_times(offline, device, clock):
    clock.epoch_s = UNSET_S
    for number in range(3):
        offline.send_telemetry({"n": number})
        clock.skip(100)
    clock.epoch_s = time.time()
    now_ms = clock.epoch_s * 1000
    connect_and_flush(offline)
    expected = [now_ms - 300000, now_ms - 200000, now_ms - 100000]
    assert times(device) == pytest.approx(expected, abs=CLOSE_MS)


def test_a_clock_that_is_set_by_on_connect_gives_the_right_times(offline, device, clock):
    def on_connect(*_):
        clock.epoch_s = time.time()

    clock.epoch_s = UNSET_S
    offline.on_connect = on_connect
    connect_and_flush(offline)  # nothing was queued yet: now the clock is set
    offline.disconnect()
    offline.send_telemetry({"n": 1})
    taken_ms = clock.time() * 1000
    clock.skip(1000)
    connect_and_flush(offline)
    assert times(device) == pytest.approx([taken_ms], abs=CLOSE_MS)


@pytest.mark.parametrize("step_s", [-3600, -10, 10, 3600])
def test_a_clock_that_is_corrected_moves_all_readings_alike(offline, device, clock, step_s):
    clock.epoch_s = 1800000000
    offline.send_telemetry({"n": 0})
    clock.skip(10)
    clock.epoch_s += step_s
    offline.send_telemetry({"n": 1})
    clock.skip(20)
    now_ms = clock.epoch_s * 1000
    connect_and_flush(offline)
    assert numbers(device) == [0, 1]
    assert times(device) == pytest.approx([now_ms - 30000, now_ms - 20000], abs=CLOSE_MS)


def test_a_clock_that_is_pulled_back_between_two_outages_does_not_mix_them(offline, device, clock):
    clock.epoch_s = 1800000000
    offline.send_telemetry({"n": 0})
    connect_and_flush(offline)
    offline.disconnect()
    clock.epoch_s -= 86400
    offline.send_telemetry({"n": 1})
    clock.skip(30)
    connect_and_flush(offline)
    now_ms = clock.epoch_s * 1000
    assert times(device)[1] == pytest.approx(now_ms - 30000, abs=CLOSE_MS)


def test_a_clock_that_is_lost_again_goes_on_from_what_it_said_last(offline, device, clock):
    offline.send_telemetry({"n": 0})
    offline.send_telemetry({"n": 1})
    clock.skip(LATE_S)
    connect_and_flush(offline)
    offline.disconnect()
    clock.skip(60)
    taken_ms = clock.time() * 1000
    clock.epoch_s = UNSET_S
    offline.send_telemetry({"n": 2})
    clock.skip(60)
    connect_and_flush(offline)
    assert numbers(device) == [0, 1, 2]
    assert times(device)[2] == pytest.approx(taken_ms, abs=CLOSE_MS)


def test_a_clock_of_whole_seconds_keeps_readings_apart(offline, device, clock, monkeypatch):
    monkeypatch.setattr(clock, "time", lambda: int(time.time()))
    for number in range(10):
        offline.send_telemetry({"n": number})
        time.sleep(0.02)
    time.sleep(LATE_S)
    connect_and_flush(offline)
    gaps = [later - earlier for earlier, later in zip(times(device), times(device)[1:])]
    assert min(gaps) >= 15
    assert sum(gaps) < CLOSE_MS


def test_readings_within_one_millisecond_have_distinct_times_in_order(offline, device, monkeypatch):
    monkeypatch.setattr("tb_device_mqtt._now_ms", lambda: 5000)
    for number in range(10):
        offline.send_telemetry({"n": number})
    offline.send_telemetry([{"n": number} for number in range(10, 20)])
    offline.send_telemetry({"n": 20})
    monkeypatch.setattr("tb_device_mqtt._now_ms", lambda: 6000)
    connect_and_flush(offline)
    assert numbers(device) == list(range(21))
    assert times(device) == sorted(set(times(device)))
    assert times(device)[-1] - times(device)[0] == 20


# --- late readings travel together ---


def test_late_readings_travel_in_few_messages(offline, device, clock):
    for number in range(60):
        offline.send_telemetry({"n": number})
    clock.skip(LATE_S)
    connect_and_flush(offline)
    assert [row["n"] for row in values(device)] == list(range(60))
    assert len(device.messages) <= 6
    assert offline.stats["sent"] == len(device.messages)
    assert offline.stats["acknowledged"] == 60


def test_each_reading_of_such_a_message_is_acknowledged_by_its_own_number(offline, device, clock):
    offline.on_publish = published = Notes()
    ids = [offline.send_telemetry({"n": number}) for number in range(60)]
    clock.skip(LATE_S)
    connect_and_flush(offline)
    run_until(offline, lambda: len(published.calls) == 60)
    assert [call[3] for call in published.calls] == ids


def test_messages_of_late_readings_respect_the_limit(offline, device, clock):
    offline.max_message_bytes = 300
    for number in range(40):
        offline.send_telemetry({"n": number, "text": "x" * (number % 7 * 10)})
    clock.skip(LATE_S)
    connect_and_flush(offline)
    assert numbers(device) == list(range(40))
    assert all(len(payload) <= 300 for _, payload, _, _ in device.messages)


def test_late_readings_of_both_qualities_of_service_are_not_mixed(offline, device, clock):
    for number in range(20):
        offline.send_telemetry({"n": number}, quality_of_service=number // 5 % 2)
    clock.skip(LATE_S)
    offline.connect()
    run_until(offline, lambda: len(device.telemetry) == 20)
    assert numbers(device) == list(range(20))
    assert [message[2] for message in device.messages] == [0, 1, 0, 1]


def test_attributes_between_late_readings_keep_their_place(offline, device, clock):
    offline.send_telemetry({"n": 0})
    offline.send_telemetry({"n": 1})
    offline.send_attributes({"a": 1})
    offline.send_telemetry({"n": 2})
    offline.send_telemetry({"n": 3})
    clock.skip(LATE_S)
    connect_and_flush(offline)
    assert [topic for topic, _, _, _ in device.messages] == [TELEMETRY, ATTRIBUTES, TELEMETRY]
    assert numbers(device) == [0, 1, 2, 3]


def test_without_a_clock_late_readings_are_not_put_together(offline, device, clock):
    clock.epoch_s = UNSET_S
    for number in range(5):
        offline.send_telemetry({"n": number})
    clock.skip(LATE_S)
    connect_and_flush(offline)
    assert len(device.messages) == 5  # else all would be stored at the same time


def test_what_travelled_together_and_was_lost_travels_together_again(
    server, offline, device, clock
):
    server.faults.mute_puback = True
    for number in range(40):
        offline.send_telemetry({"n": number})
    clock.skip(LATE_S)
    offline.connect()
    run_until(offline, lambda: len(device.telemetry) == 40)
    first = device.messages
    server.faults.mute_puback = False
    lose(offline, device)
    flush(offline)
    again = device.messages[len(first) :]
    assert 1 < len(first) <= 6
    assert len(again) <= len(first) + 1  # the first reading travels alone until it is acknowledged
    assert device.telemetry[40:] == device.telemetry[:40]
    assert {dup for _, _, _, dup in first} == {False}
    assert {dup for _, _, _, dup in again} == {True}


# --- full ---


def test_the_queue_is_bounded_by_size_and_the_oldest_telemetry_goes(server, device):
    with offline_client(server, queue_size=5) as client:
        client.on_drop = dropped = Notes()
        ids = [client.send_telemetry({"n": number}) for number in range(12)]
        assert client.pending_messages_count == 5
        assert client.stats["dropped"] == 7
        connect_and_flush(client)
        assert [call[3] for call in dropped.calls] == ids[:7]
    assert numbers(device) == [7, 8, 9, 10, 11]


def test_the_queue_is_bounded_by_bytes_too(server, device):
    with offline_client(server, queue_bytes=1000) as client:
        client.on_drop = dropped = Notes()
        for number in range(20):
            client.send_telemetry({"n": number, "text": "x" * 80})
        pending = client.pending_messages_count
        assert 4 <= pending <= 10
        assert client.stats["dropped"] == 20 - pending
        client.send_telemetry({"n": 20, "text": "x" * 700})
        assert client.pending_messages_count < 4
        connect_and_flush(client)
        assert len(dropped.calls) == client.stats["dropped"]
    assert numbers(device)[-1] == 20
    assert numbers(device) == sorted(numbers(device))


def test_attributes_replies_and_claims_outlive_any_number_of_readings(server, device):
    with offline_client(server, queue_size=6) as client:
        client.send_telemetry({"n": 0})
        client.send_attributes({"a": 1})
        client.send_rpc_reply(7, "ok")
        client.claim_device("code")
        client.send_attributes({"b": 2})
        for number in range(1, 100):
            client.send_telemetry({"n": number})
        assert client.pending_messages_count == 6
        connect_and_flush(client)
    assert device.client_attributes == {"a": 1, "b": 2}
    assert device.rpc_replies == [(7, b'"ok"')]
    assert device.claim["secretKey"] == "code"
    assert numbers(device) == [98, 99]


def test_attributes_make_room_for_themselves_at_the_cost_of_readings(server, device):
    with offline_client(server, queue_size=4) as client:
        for number in range(4):
            client.send_telemetry({"n": number})
        for number in range(3):
            client.send_attributes({"a%d" % number: number})
        connect_and_flush(client)
    assert numbers(device) == [3]
    assert device.client_attributes == {"a0": 0, "a1": 1, "a2": 2}


def test_readings_never_push_attributes_out(server, device):
    with offline_client(server, queue_size=3) as client:
        client.on_drop = dropped = Notes()
        for number in range(3):
            client.send_attributes({"a%d" % number: number})
        client.send_telemetry({"n": 1})
        connect_and_flush(client)
    assert [call[2] for call in dropped.calls] == [TELEMETRY]
    assert device.client_attributes == {"a0": 0, "a1": 1, "a2": 2}


def test_of_attributes_alone_the_oldest_go(server, device):
    with offline_client(server, queue_size=3) as client:
        client.on_drop = dropped = Notes()
        for number in range(5):
            client.send_attributes({"a%d" % number: number})
        connect_and_flush(client)
    assert [call[4] for call in dropped.calls] == [b'{"a0":0}', b'{"a1":1}']
    assert device.client_attributes == {"a2": 2, "a3": 3, "a4": 4}


def test_a_reply_finds_room_though_all_readings_are_in_flight(server, device):
    with online_client(server, queue_size=4) as client:
        client.on_drop = dropped = Notes()
        server.faults.mute_puback = True
        for number in range(4):
            client.send_telemetry({"n": number})
        run_until(client, lambda: len(device.messages) == 4)
        client.send_rpc_reply(7, "ok")
        client.send_attributes({"a": 1})
        run_until(client, lambda: device.client_attributes and device.rpc_replies)
        assert client.pending_messages_count == 4
        assert [call[4] for call in dropped.calls] == [b'{"n":0}', b'{"n":1}']
        server.faults.mute_puback = False
        lose(client, device)
        assert client.flush(5)
        assert client.stats["dropped"] == 2


def test_readings_never_push_out_what_is_in_flight(server, device):
    with online_client(server, queue_size=4) as client:
        client.on_drop = dropped = Notes()
        server.faults.mute_puback = True
        for number in range(4):
            client.send_telemetry({"n": number})
        run_until(client, lambda: len(device.messages) == 4)
        client.send_telemetry({"n": 4})
        assert client.pending_messages_count == 4
        server.faults.mute_puback = False
        lose(client, device)
        flush(client)
        assert [call[4] for call in dropped.calls] == [b'{"n":4}']
    assert numbers(device) == [0, 1, 2, 3]


def test_what_is_dropped_is_told_to_the_logger_without_its_payload(server, device):
    logger = LogNotes()
    with offline_client(server, queue_size=1, logger=logger) as client:
        client.publish("any/topic", "private words")
        client.publish("any/topic", "other words")
    assert "any/topic" in logger.text
    assert "full" in logger.text
    assert "private" not in logger.text


def test_a_logger_may_send_what_it_is_told(server, device):
    class Reporter:
        def warning(self, text, *arguments):
            client.send_telemetry({"log": text % arguments})

    with offline_client(server, queue_size=2, logger=Reporter()) as client:
        for number in range(4):
            client.send_telemetry({"n": number})
        for _ in range(10):
            client.check_for_msg()
        assert client.stats["dropped"] == 4  # the two oldest, and what the logger sent
        assert client.pending_messages_count == 2
        client.connect()
        assert client.flush(5)
    assert [row["n"] for row in values(device)] == [2, 3]


@pytest.mark.parametrize("is_told", [False, True])
def test_ten_thousand_drops_without_a_poll_stay_bounded(offline, device, is_told):
    dropped = Notes()
    if is_told:
        offline.on_drop = dropped
    for number in range(500):  # until everything that grows to its bound has done so
        offline.send_telemetry({"n": number})
    tracemalloc.start()
    started = time.perf_counter()
    for number in range(10000):
        offline.send_telemetry({"n": number})
    elapsed_s = time.perf_counter() - started
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 60000  # the 64 that are kept; all would be 3 MB
    assert elapsed_s < 20
    assert offline.pending_messages_count == 64
    assert offline.stats["dropped"] == 10500 - 64
    connect_and_flush(offline)
    assert numbers(device) == list(range(10000 - 64, 10000))
    if is_told:
        assert 64 <= len(dropped.calls) <= 500


# --- numbers ---


def test_packet_ids_begin_again_and_none_is_used_twice_at_a_time(server, device):
    with offline_client(server, queue_size=30) as client:
        client._outbox._last_id = PACKET_IDS - 10
        client.on_publish = published = Notes()
        ids = [client.send_attributes({"a%d" % number: number}) for number in range(30)]
        client.connect()
        client.flush(10)
        run_until(client, lambda: len(published.calls) == 30)
    assert sorted(call[3] for call in published.calls) == ids
    assert len(device.client_attributes) == 30
    assert ids[0] < PACKET_IDS < ids[-1]


# --- messages that the server dislikes ---


@pytest.mark.parametrize("position", [0, 4, 9])
def test_a_poison_message_is_dropped_and_told_alone_and_all_others_arrive(
    server, client, device, position
):
    client._link.backoff_ms = 1
    client.on_drop = dropped = Notes()
    server.faults.close_on = b"poison"
    ids = []
    for number in range(10):
        name = "poison" if number == position else "a%d" % number
        ids.append(client.send_attributes({name: number}))
    run_until(client, lambda: client.pending_messages_count == 0, timeout=20)
    ((_, _, topic, message_id, payload, reason),) = dropped.calls
    assert (topic, message_id) == (ATTRIBUTES, ids[position])
    assert b"poison" in payload
    assert "lost" in reason
    assert client.stats["dropped"] == 1
    expected = {"a%d" % number: number for number in range(10) if number != position}
    assert device.client_attributes == expected


def test_a_poison_reading_among_late_ones_is_found(server, offline, device, clock):
    offline._link.backoff_ms = 1
    offline.on_drop = dropped = Notes()
    server.faults.close_on = b"poison"
    for number in range(20):
        offline.send_telemetry({"n": number, "text": "poison" if number == 7 else "fine"})
    clock.skip(LATE_S)
    offline.connect(timeout=0)
    run_until(offline, lambda: offline.pending_messages_count == 0, timeout=20)
    assert [json.loads(call[4])["n"] for call in dropped.calls] == [7]
    assert numbers(device) == [number for number in range(20) if number != 7]


def test_to_disconnect_is_no_mark_against_the_message_in_flight(server, client, device):
    client.on_drop = dropped = Notes()
    server.faults.mute_puback = True
    client.send_attributes({"a": 1})
    for count in range(1, 11):
        run_until(client, lambda count=count: len(device.messages) == count)
        client.disconnect()
        client.connect()
    server.faults.mute_puback = False
    run_until(client, lambda: len(device.messages) == 11)
    lose(client, device)
    flush(client)
    assert dropped.calls == []
    assert device.client_attributes == {"a": 1}


def break_off(client):
    """The connection goes before all that was written has left."""
    client._link._unsent.append(memoryview(b"the rest"))
    client._link._fault = OSError("cut")
    run_until(client, lambda: not client.connected)


def test_what_did_not_leave_as_a_whole_gets_no_mark(server, client, device):
    client._link.backoff_ms = 1
    server.faults.mute_puback = True
    client.send_attributes({"a": 1})
    for count in range(1, 12):
        run_until(client, lambda count=count: client.connected and len(device.messages) == count)
        break_off(client)
    server.faults.mute_puback = False
    flush(client)
    assert client.stats["dropped"] == 0
    assert device.client_attributes == {"a": 1}


def test_after_any_loss_the_first_message_travels_alone(server, client, device):
    """Otherwise one that makes the server hang up would hide among the others for ever."""
    client._link.backoff_ms = 1
    server.faults.mute_puback = True
    for number in range(5):
        client.send_attributes({"a": number})
    run_until(client, lambda: len(device.messages) == 5)
    break_off(client)
    run_until(client, lambda: len(device.messages) == 6)
    run_for(client, 0.1)
    assert len(device.messages) == 6


def test_the_marks_of_a_message_that_was_dropped_are_not_those_of_the_next(server, device):
    with online_client(server, queue_size=1) as client:
        client._link.backoff_ms = 1
        client.on_drop = dropped = Notes()
        server.faults.close_on = b"poison"
        client.send_telemetry({"poison": 0})
        run_until(client, lambda: device.connects == 6)
        run_until(client, lambda: not client.connected)
        client.send_telemetry({"poison": 1})
        run_until(client, lambda: device.connects == 12)
        assert [call[5] for call in dropped.calls] == ["queue full: 1 messages, queue_size=1"]


def test_two_poison_messages_are_both_found(server, client, device):
    client._link.backoff_ms = 1
    client.on_drop = dropped = Notes()
    server.faults.close_on = b"poison"
    for name in ("a", "poison1", "b", "poison2", "c"):
        client.send_attributes({name: 1})
    run_until(client, lambda: client.pending_messages_count == 0, timeout=20)
    assert [call[4] for call in dropped.calls] == [b'{"poison1":1}', b'{"poison2":1}']
    assert device.client_attributes == {"a": 1, "b": 1, "c": 1}


def test_a_poison_message_takes_minutes_and_not_moments_to_be_given_up(server, client, device):
    """A server that restarts hangs up a few times, too."""
    client._link.backoff_ms = 1
    server.faults.close_on = b"poison"
    client.send_attributes({"poison": 1})
    run_until(client, lambda: device.connects == 4)
    server.faults.close_on = None
    flush(client)
    assert client.stats["dropped"] == 0
    assert device.client_attributes == {"poison": 1}


def test_a_message_that_is_never_acknowledged_is_given_up_and_told(
    server, client, device, monkeypatch
):
    """A plain device's publish to a gateway topic is one."""
    client._link.backoff_ms = 1
    monkeypatch.setattr("tb_device_mqtt._ACK_TIMEOUT_MS", 50)
    client.on_drop = dropped = Notes()
    client.publish("v1/gateway/telemetry", "{}")
    client.send_attributes({"a": 1})
    run_until(client, lambda: client.pending_messages_count == 0, timeout=20)
    assert [call[2] for call in dropped.calls] == ["v1/gateway/telemetry"]
    assert device.client_attributes == {"a": 1}


def test_a_server_that_acknowledges_nothing_for_a_while_loses_nothing(
    server, client, device, monkeypatch
):
    client._link.backoff_ms = 1
    monkeypatch.setattr("tb_device_mqtt._ACK_TIMEOUT_MS", 50)
    server.faults.mute_puback = True
    for number in range(20):
        client.send_telemetry({"n": number})
    run_until(client, lambda: device.connects >= 3)
    assert "acknowledgement" in str(client.last_error)
    server.faults.mute_puback = False
    flush(client)
    assert numbers(device) == list(range(20))
    assert client.stats["dropped"] == 0


def test_a_rate_limit_for_a_while_loses_nothing(server, client, device):
    client._link.backoff_ms = 5
    for number in range(10):
        client.send_telemetry({"n": number})
    assert client.flush(5)
    device.rate_limited = True
    for number in range(10, 30):
        client.send_telemetry({"n": number})
        client.check_for_msg()
    run_until(client, lambda: client.stats["connects"] >= 6)
    device.rate_limited = False
    flush(client)
    assert numbers(device) == list(range(30))
    assert client.stats["dropped"] == 0


def test_a_server_that_forgets_what_comes_before_its_connack_gets_it_after(
    server, offline, device, monkeypatch
):
    server.faults.ignore_before_connack = True
    server.faults.connack_delay = 0.02
    monkeypatch.setattr("tb_device_mqtt._ACK_TIMEOUT_MS", 200)
    offline.send_telemetry({"n": 1})
    offline.rpc("method")(Notes("ok"))
    offline.connect()
    flush(offline)
    reply = device.call_rpc("method")
    run_until(offline, reply.done)
    assert numbers(device) == [1]
    assert offline.stats["dropped"] == 0


# --- flush, pending_messages_count, stats ---


def test_flush_is_true_when_all_is_acknowledged(server, client, device):
    server.faults.puback_delay = 0.05
    client.send_telemetry({"n": 1})
    assert client.pending_messages_count == 1
    assert client.flush() is True
    assert client.pending_messages_count == 0
    assert client.flush(0) is True


def test_flush_is_false_after_its_timeout(server, client, device):
    server.faults.mute_puback = True
    client.send_telemetry({"n": 1})
    started = time.monotonic()
    assert client.flush(0.1) is False
    assert 0.09 <= time.monotonic() - started < 3
    assert client.pending_messages_count == 1
    assert client.flush(0) is False


def test_flush_is_false_at_once_when_stopped(offline):
    offline.send_telemetry({"n": 1})
    started = time.monotonic()
    assert offline.flush() is False
    assert offline.flush(10) is False
    assert time.monotonic() - started < 3


def test_flush_of_nothing_is_true_even_when_stopped(offline):
    assert offline.flush() is True


def test_flush_waits_for_the_link_to_come_back(server, client, device):
    device.disconnect(rst=True)
    client.send_telemetry({"n": 1})
    assert client.flush(10) is True
    assert numbers(device) == [1]


def test_wait_for_msg_is_the_number_of_messages_or_0(client, device):
    assert client.wait_for_msg(0.02) == 0
    assert client.wait_for_msg(0) == 0
    client.request_attributes()
    assert client.wait_for_msg(5) == 1


def test_pending_messages_count_follows_what_is_queued_and_acknowledged(server, client, device):
    assert client.pending_messages_count == 0
    server.faults.mute_puback = True
    for count in range(1, 20):
        client.send_telemetry({"n": count})
        assert client.pending_messages_count == count
    server.faults.mute_puback = False
    lose(client, device)
    flush(client)


def test_stats_count_what_was_sent_and_acknowledged(client, device):
    for number in range(10):
        client.send_attributes({"n": number})
    client.send_attributes({"n": 10}, quality_of_service=0)
    assert client.flush(5)
    run_until(client, lambda: len(payloads(device, ATTRIBUTES)) == 11)
    assert client.stats["sent"] == 11
    assert client.stats["acknowledged"] == 10
    assert client.stats["resent"] == client.stats["dropped"] == 0
    assert client.stats["connects"] == 1


def test_the_loop_of_the_reference_page_loses_nothing(client, device):
    for number in range(100):
        client.check_for_msg()
        client.send_telemetry({"n": number})
        client.send_attributes({"status": "ok"})
        time.sleep(0.002)
    assert client.flush(5)
    assert [value for _, value in device.stored("n")] == list(range(100))
    assert device.connects == 1
    assert client.stats["dropped"] == 0
