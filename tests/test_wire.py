# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What travels when: round trips, packets and their order, over real sockets."""

import time

import pytest

from clients import Notes, flush, new_client, packets, values
from faults.proxy import FaultProxy
from faults.scripted_broker import packets_of
from faults.sockets import CountingPool
from helpers import run_until

ROUND_TRIP_S = 0.08
ATTEMPTS = 3  # the best of them counts: the machine may be busy


@pytest.fixture
def slow_link(server):
    with FaultProxy(server.port) as proxy:
        proxy.round_trip(ROUND_TRIP_S)
        yield proxy


def count_round_trips(act):
    """Round trips of ``act(client)``, which connects a new client; the fewest of some attempts."""
    return min(_seconds_of(act) for _ in range(ATTEMPTS)) / ROUND_TRIP_S


def _seconds_of(act):
    started = time.perf_counter()
    act()
    # The proxy delays bytes, not the three-way handshake of TCP: that is one more round trip.
    return time.perf_counter() - started + ROUND_TRIP_S


# --- round trips ---


def test_the_first_telemetry_is_acknowledged_three_round_trips_after_connect(device, slow_link):
    def connect_and_send():
        client = new_client(slow_link)
        client.connect()
        client.send_telemetry({"n": 1})
        flush(client)
        client.disconnect(0)

    assert count_round_trips(connect_and_send) < 3.5


def test_what_was_queued_before_is_acknowledged_after_two(device, slow_link):
    def send_and_connect():
        client = new_client(slow_link)
        client.send_telemetry({"n": 1})
        client.connect(timeout=0)
        flush(client)
        client.disconnect(0)

    assert count_round_trips(send_and_connect) < 2.5


def test_with_subscriptions_it_takes_no_longer(device, slow_link):
    def send_and_connect():
        client = new_client(slow_link)
        client.set_server_side_rpc_request_handler(Notes())
        client.subscribe_to_all_attributes(Notes())
        client.send_telemetry({"n": 1})
        client.connect(timeout=0)
        flush(client)
        client.disconnect(0)

    assert count_round_trips(send_and_connect) < 2.5


def test_a_question_asked_before_is_answered_after_two(device, slow_link):
    device.push_attributes({"interval": 5})

    def ask():
        answer = Notes()
        client = new_client(slow_link)
        client.request_attributes(shared_keys="interval", callback=answer)
        client.connect(timeout=0)
        run_until(client, lambda: answer.calls)
        client.disconnect(0)
        assert answer.calls == [({"shared": {"interval": 5}}, None)]

    assert count_round_trips(ask) < 2.5


def test_an_rpc_that_waits_is_answered_and_acknowledged_after_three(device, slow_link):
    """TCP, then SUBSCRIBE and the request, then the reply and its PUBACK."""

    def answer():
        client = new_client(slow_link)
        client.rpc("get")(lambda params: params)
        reply = device.call_rpc("get", 5)
        client.connect(timeout=0)
        run_until(client, reply.done)
        client.disconnect(0)
        assert reply.result() == 5

    assert count_round_trips(answer) < 3.5


def test_more_than_80_messages_a_second_are_acknowledged_over_a_slow_link(device, slow_link):
    count = 72
    with new_client(slow_link, queue_size=count, queue_bytes=100000) as client:
        rates = []
        while len(rates) < ATTEMPTS and max(rates, default=0) <= 80:
            started = time.perf_counter()
            for number in range(count):
                client.send_attributes({"n": number})  # a packet each: readings share them
            flush(client)
            rates.append(count / (time.perf_counter() - started))
    assert max(rates) > 80, rates
    assert client.stats["sent"] == count * len(rates)


def test_acknowledgements_one_by_one_wait_for_no_delayed_ack(server, device):
    """Nagle's algorithm and a delayed ACK would make 40 ms of each."""
    with new_client(server) as client:
        started = time.perf_counter()
        for number in range(50):
            client.send_telemetry({"n": number})
            flush(client)
        assert time.perf_counter() - started < 1


# --- packets ---


def test_one_packet_is_one_send(server, device):
    pool, answer = CountingPool(), Notes()
    client = new_client(server, socket_pool=pool)
    client.rpc("get")(lambda params: params)
    client.request_attributes(callback=answer)
    client.send_telemetry({"n": 0})
    client.connect()
    for number in range(5):
        client.send_telemetry({"n": number, "text": "x" * 300 * number})
    reply = device.call_rpc("get", 5)
    run_until(client, lambda: reply.done() and answer.calls)
    flush(client)
    client.disconnect()
    assert pool.sends == [packet.whole for packet in packets_of(b"".join(pool.sends))]
    assert len(pool.sends) >= 10


def test_a_board_that_only_sends_subscribes_to_nothing(server, device):
    with new_client(server) as client:
        client.send_telemetry({"n": 1})
        client.send_attributes({"version": "1"})
        client.claim_device("secret", 60000)
        flush(client)
        assert device.subscriptions == {}
        assert packets(server) == ["CONNECT", "PUBLISH", "PUBLISH", "PUBLISH"]


def test_all_topics_are_in_one_subscribe(server, device):
    client = new_client(server)
    client.set_server_side_rpc_request_handler(Notes())
    client.subscribe_to_all_attributes(Notes())
    client.request_attributes(callback=Notes())
    client.send_rpc_call("getTime", callback=Notes())
    client.connect()
    flush(client)
    assert len(device.subscriptions) == 4
    client.disconnect()
    assert packets(server).count("SUBSCRIBE") == 1


def test_a_server_that_ignores_what_came_before_its_connack_gets_it_after(
    server, device, monkeypatch
):
    """ThingsBoard before 3.3."""
    server.faults.ignore_before_connack = True
    server.faults.connack_delay = 0.05
    changes = Notes()
    client = new_client(server)
    monkeypatch.setattr("tb_device_mqtt._ACK_TIMEOUT_MS", 200)
    client.subscribe_to_all_attributes(changes)
    for number in range(3):
        client.send_telemetry({"n": number})
    client.connect(timeout=0)
    flush(client)
    device.push_attributes({"interval": 5})
    run_until(client, lambda: changes.calls)
    client.disconnect()
    assert [row["n"] for row in values(device)] == [0, 1, 2]
    log = [name for _, _, name in server.packets]
    second = log[log.index("CONNECT", 1) :]
    assert second[:3] == ["CONNECT", "CONNACK", "SUBSCRIBE"]
    assert client.stats["connects"] == 2
