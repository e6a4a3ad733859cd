# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The stand-in beyond loopback: nobody fills its memory or keeps its connections for nothing."""

import ssl

import pytest
import trustme

from helpers import wait_until
from local_server import LocalServer
from raw_peer import Peer, connect_packet, puback, publish_packet, subscribe_packet

ATTRIBUTES = "v1/devices/me/attributes"
TELEMETRY = "v1/devices/me/telemetry"
RPC_REQUEST = "v1/devices/me/rpc/request/"


# --- connections ---


def test_a_connection_too_many_is_closed_and_one_that_ends_makes_room(server, device, open_peer):
    server.max_connections = 2
    first, second = open_peer(), open_peer().connect("TOKEN_A")
    assert open_peer().is_closed()
    assert second.is_alive()
    first.close()
    wait_until(lambda: server.connections == 1)
    third = open_peer()
    third.send(connect_packet(username="wrong"))
    assert third.read() == b"\x20\x02\x00\x05"


def test_a_connection_without_connect_is_closed(server, device, open_peer):
    server.connect_timeout_s = 0.2
    peer, silent = open_peer().connect("TOKEN_A"), open_peer()
    assert silent.is_closed()
    assert peer.is_alive()


def test_half_a_connect_is_not_enough(server, device, open_peer):
    server.connect_timeout_s = 0.1
    peer = open_peer()
    peer.send(connect_packet(username="TOKEN_A")[:-1])
    assert peer.is_closed()


def test_a_connect_that_the_server_does_not_answer_is_a_connect(server, device, open_peer):
    server.connect_timeout_s, server.faults.connack = 0.05, "silence"
    peer = open_peer()
    peer.send(connect_packet(username="TOKEN_A"))
    assert peer.hears_nothing()


def test_like_thingsboard_the_server_can_wait_for_a_connect_for_ever(server, device, open_peer):
    server.connect_timeout_s = None
    assert open_peer().hears_nothing()


def test_the_limits_are_those_that_the_documentation_names(server):
    assert (server.max_connections, server.connect_timeout_s) == (10000, 10)
    assert server.max_held_bytes == 1048576


def test_a_tls_handshake_has_to_come_in_time():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    server = LocalServer(ssl_context=context)
    server.connect_timeout_s = 0.1
    with server:
        peer = Peer(server)
        assert peer.is_closed()
        peer.close()


# --- memory ---


def test_a_peer_that_does_not_read_is_reset(server, device, peer):
    peer.subscribe(ATTRIBUTES)
    big = {"k": "x" * 60000}
    assert device.wait(lambda d: not d.push_attributes(big), timeout=20)
    assert not device.online
    assert server.connections == 0


def test_a_peer_that_reads_late_gets_everything(server, device, peer):
    peer.subscribe(ATTRIBUTES)
    for _ in range(10):
        assert device.push_attributes({"k": "x" * 60000})
    assert [len(peer.read_publish()[1]) for _ in range(10)] == [60008] * 10


@pytest.mark.parametrize(("count", "is_kept"), ((16, True), (18, False)))
def test_what_comes_before_the_connack_is_bounded_in_bytes(
    server, device, open_peer, count, is_kept
):
    server.faults.connack_delay = 0.5 if is_kept else 60
    peer = open_peer()
    big = b'{"k":"%s"}' % (b"x" * 60000)
    peer.send(connect_packet(username="TOKEN_A"), *[publish_packet(TELEMETRY, big)] * count)
    assert peer.is_closed() is not is_kept
    assert device.wait(lambda d: len(d.messages) == count) if is_kept else not device.messages


def test_subscriptions_before_the_connack_count_as_well(server, device, open_peer):
    server.faults.connack_delay = 60
    peer = open_peer()
    many = subscribe_packet(*[("x", 0)] * 15000)
    peer.send(connect_packet(username="TOKEN_A"), *[many] * 18)
    assert peer.is_closed()


def test_what_was_handled_counts_no_more(server, device, open_peer):
    server.faults.connack_delay, server.max_held_bytes = 0.1, 1000
    peer = open_peer()
    filling = b"x" * 400
    # The server does not catch what the first one raises, so that the second stays in the queue.
    peer.send(
        connect_packet(username="TOKEN_A"),
        publish_packet(TELEMETRY, b'{"ts":null,"values":{"k":"%s"}}' % filling),
        publish_packet(TELEMETRY, b'{"k":"%s"}' % filling, packet_id=2),
    )
    assert peer.read() == b"\x20\x02\x00\x00"
    peer.publish(TELEMETRY, b'{"k":"%s"}' % filling, packet_id=3)
    assert (peer.read(), peer.read()) == (puback(2), puback(3))


def test_client_rpcs_that_wait_for_an_answer_are_bounded(device, peer):
    for number in range(1000):
        peer.publish(RPC_REQUEST + str(number), b'{"method":"m"}', qos=0)
    assert peer.is_alive()
    peer.publish(RPC_REQUEST + "0", b'{"method":"m"}', qos=0)  # takes the place of the first
    assert peer.is_alive()
    peer.publish(RPC_REQUEST + "1000", b'{"method":"m"}', qos=0)
    assert peer.is_closed()
