# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A stand-in that is slow, or that hangs for a while."""

import socket
import threading
import time

import pytest

from fakes import Clock, MemoryServer
from local_server import LocalServer
from raw_peer import Peer, connect_packet, puback, publish_packet

TELEMETRY = "v1/devices/me/telemetry"
NOW_MS = 1700000000000
COUNT = 30


def readings(count=COUNT):
    return [publish_packet(TELEMETRY, b'{"n":%d}' % n, packet_id=n + 1) for n in range(count)]


def numbers(device):
    return [row["n"] for _, row in device.telemetry]


# --- so much time for a message ---


def test_each_message_takes_its_time_one_after_the_other(server, device, peer):
    server.faults.message_time = 0.01
    started = time.monotonic()
    peer.send(*readings(), b"\xc0\x00")
    assert [peer.read() for _ in range(COUNT)] == [puback(n + 1) for n in range(COUNT)]
    assert time.monotonic() - started >= COUNT * 0.01
    assert peer.read() == b"\xd0\x00"  # in its turn, and for nothing
    assert numbers(device) == list(range(COUNT))


def test_a_message_is_stored_when_its_time_is_over(server, device, peer):
    server.faults.message_time = 0.05
    peer.send(*readings(2))
    assert peer.read() == puback(1)
    assert numbers(device) == [0]


def test_one_slow_connection_leaves_the_others_alone(server, device, peer, open_peer):
    server.add_device("Shed", token="OTHER")
    other = open_peer().connect("OTHER")
    server.faults.message_time = 60
    peer.send(*readings(1))
    assert other.is_alive()
    assert numbers(device) == []


def test_a_peer_that_closes_with_unread_acknowledgements_loses_messages(server, device, peer):
    server.faults.message_time = 0.01
    peer.send(*readings())
    assert peer.socket.recv(4, socket.MSG_PEEK)  # the first PUBACK is there, and stays unread
    peer.close()
    assert device.wait(lambda d: not d.online)
    stored = numbers(device)
    assert stored == list(range(len(stored)))
    assert 1 <= len(stored) < COUNT


def test_a_peer_that_ends_with_fin_and_reads_on_loses_nothing(server, device, peer):
    server.faults.message_time = 0.005
    peer.send(*readings())
    peer.socket.shutdown(socket.SHUT_WR)
    assert [peer.read() for _ in range(COUNT)] == [puback(n + 1) for n in range(COUNT)]
    assert peer.is_closed()
    assert numbers(device) == list(range(COUNT))


def test_a_slow_server_reads_no_more_than_it_can_handle(server, device, peer):
    server.faults.message_time = 60
    peer.socket.settimeout(0.3)
    big = publish_packet(TELEMETRY, b'{"k":"%s"}' % (b"x" * 60000))
    with pytest.raises(socket.timeout):
        for _ in range(1000):
            peer.socket.sendall(big)


def test_a_session_that_ends_while_it_is_busy_drops_the_message(server, device, peer):
    server.faults.message_time = 0.05
    peer.send(*readings(3))
    assert peer.read() == puback(1)
    device.disconnect()
    assert peer.is_closed()
    time.sleep(0.15)
    assert numbers(device) == [0]
    assert [name for _, _, name in server.packets].count("PUBLISH") == 1


def test_a_slow_server_gets_quick_again(server, device, peer):
    server.faults.message_time = 0.02
    peer.send(*readings(2))
    assert peer.read() == puback(1)
    server.faults.message_time = 0
    peer.send(*readings(5))
    assert [peer.read() for _ in range(6)] == [puback(n) for n in (2, 1, 2, 3, 4, 5)]


def test_what_comes_all_the_same_while_it_is_busy_waits_its_turn():
    clock = Clock()  # a transport that can't be told to wait, as TLS on older Pythons
    server = MemoryServer(clock)
    device = server.add_device("Roof", "TOKEN")
    connection = server.pool.socket()
    connection.connect(None)
    server.faults.message_time = 1
    connection.send(connect_packet(username="TOKEN"))
    for reading in readings(3):
        connection.send(reading)
        connection.deliver()
    for stored in (0, 1, 2, 3):
        assert len(device.telemetry) == stored
        clock.advance(1000)


# --- hanging ---


def test_what_waited_for_a_hanging_server_has_the_time_at_which_it_goes_on(server, device, peer):
    server.clock_ms = lambda: NOW_MS
    server.hang()
    peer.send(*readings(3))
    assert peer.hears_nothing()
    assert numbers(device) == []
    server.clock_ms = lambda: NOW_MS + 30000
    server.go_on()
    assert [peer.read() for _ in range(3)] == [puback(1), puback(2), puback(3)]
    assert device.telemetry == [(NOW_MS + 30000, {"n": n}) for n in range(3)]
    assert device.stored("n") == [(NOW_MS + 30000, 2)]


def test_a_server_may_hang_for_some_seconds(server, peer):
    started = time.monotonic()
    server.hang(0.1)
    assert peer.is_alive()
    assert time.monotonic() - started >= 0.1


def test_a_connection_to_a_hanging_server_is_served_later(server, device, open_peer):
    server.hang()
    waiting = open_peer()
    threading.Timer(0.05, server.go_on).start()
    waiting.connect("TOKEN_A")
    assert device.online


def test_a_server_that_hangs_can_be_closed():
    with LocalServer() as server:
        server.add_device("Roof", token="TOKEN")
        peer = Peer(server).connect()
        server.hang()
    assert peer.is_closed()
    peer.close()


def test_a_server_does_not_hang_itself(server, device, peer):
    refused = []

    def handler(_method, _params):
        with pytest.raises(RuntimeError):
            server.hang()
        refused.append(True)

    device.on_client_rpc = handler
    peer.publish("v1/devices/me/rpc/request/1", b'{"method":"m"}')
    assert peer.read() == puback(1)
    assert refused
