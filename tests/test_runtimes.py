# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The same behaviour on several Pythons: the scenarios of runtimes/, played on each of them.

The library there is the file itself or its .mpy, with MiniMQTT, ConnectionManager and ticks as they
are. Judged is what the server saw, then what the board told.
"""

import base64
import json
import time
from pathlib import Path

import pytest

import interpreters
from clients import ATTRIBUTES, RPC_REQUEST, numbers, packets, values
from faults.proxy import FIN, RST, FaultProxy
from helpers import free_port
from local_server import mqtt311


@pytest.fixture(scope="module", params=interpreters.parameters())
def runtime(request, tmp_path_factory):
    found = interpreters.Runtime(request.param, tmp_path_factory.mktemp("board"))
    yield found
    found.close()


@pytest.fixture
def board(runtime):
    """An interpreter that waits for a scenario."""
    playing = runtime.interpreter()
    yield playing
    if not playing.is_ready:
        playing.close()


def subscribed(device, topic):
    assert device.wait(lambda d: topic in d.subscriptions)


# --- which interpreter it is ---


def test_the_library_is_the_file_that_was_meant(board, runtime):
    kind, form = runtime.name.split("-")
    implementation, _, path, _ = board.about
    assert implementation == ("cpython" if form == "python" else kind)
    file_name = "tb_device_mqtt." + ("mpy" if form == "mpy" else "py")
    assert Path(path).parts[-2:] == ("lib", file_name)


@pytest.mark.parametrize("stand_in", interpreters.parameters(["micropython-py"]))
def test_a_variable_names_the_unix_port_of_circuitpython(
    stand_in, monkeypatch, tmp_path, server, device
):
    """MicroPython stands in for it: nobody offers a CircuitPython for computers."""
    (program,), _ = interpreters.prepare(stand_in, tmp_path / "micropython")
    monkeypatch.setenv("CIRCUITPYTHON_UNIX", program)
    runtime = interpreters.Runtime("circuitpython-py", tmp_path / "circuitpython")
    told = runtime.interpreter().play("connecting.block", server.port)
    runtime.close()
    assert told == "stopped"
    assert values(device) == [{"inside": 1}]


# --- connections ---


def test_a_session_begins_and_ends(board, server, device):
    told = board.play("connecting.session", server.port)
    assert told["states"] == [
        ["waiting", None],
        ["connecting", None],
        ["online", None],
        ["stopped", None],
    ]
    assert told["calls"] == [["mine", 0, 0], ["mine", 0]]
    assert told["is_online"] == [False, True, True, False]
    assert device.wait(lambda d: not d.online)
    assert packets(server) == ["CONNECT", "DISCONNECT"]


def test_a_with_block_sends_everything_before_it_ends(board, server, device):
    assert board.play("connecting.block", server.port) == "stopped"
    assert values(device) == [{"inside": 1}]


def test_an_unknown_token_is_refused_in_words(board, server, device):
    settings = {"access_token": "TOKEN_B"}
    kind, code, words, *states = board.play("connecting.refusal", server.port, settings=settings)
    assert (kind, code) == ("TBRefusedError", 5)
    assert "CONNACK 5" in words
    assert "refused the access token" in words
    assert states == ["waiting", "stopped"]
    assert device.connects == 0


def test_a_port_on_which_nobody_listens_is_told_in_words(board):
    port = free_port()
    kind, _, words, *states = board.play("connecting.refusal", port)
    assert (kind, states) == ("OSError", ["waiting", "stopped"])
    assert "no server is listening on 127.0.0.1 port %d" % port in words


def test_a_server_without_an_answer_is_given_up(board, server, device):
    server.faults.connack = "silence"
    told = board.play("connecting.silence", server.port)
    assert told[0] == "TBTimeoutError"
    assert "0.2 s" in told[1]


def test_a_session_goes_well_on_short_topics(board, server, device):
    device.on_client_rpc = lambda method, _params: method
    board.start("connecting.on_short_topics", server.port)
    assert device.rpc("echo", [1.5, "é"]) == [1.5, "é"]
    device.push_attributes({"interval": 3})
    device.rpc("release")
    answers, changes = board.result()
    assert answers == [{"client": {"version": "x"}}, "getTime"]
    assert changes == [{"interval": 3}]
    assert values(device) == [{"temperature": 21.5}]
    assert [topic for topic, *_ in device.messages if not topic.startswith("v2/")] == []


# --- telemetry, claiming ---


def test_telemetry_of_every_shape_arrives(board, server, device):
    assert board.play("telemetry.every_shape", server.port) == 0
    assert device.wait(lambda d: not d.online)
    assert values(device) == [
        {"int": 7, "bool": True, "text": "x", "json": {"a": [1, {"b": None}]}},
        {"a": 1},
        {"b": 2},
        {"c": 3},
        {"d": 4},
        {"e": 5},
        {"f": 6},
        {"g": 7},
        {"unacknowledged": 8},
    ]
    own_times = [ts for ts, row in device.telemetry if set(row) & set("cdeg")]
    assert own_times == [1700000000000, 1700000000001, 1700000000002, 1700000000003]


def test_floats_arrive_as_numbers(board, server, device):
    board.play("telemetry.floats", server.port)
    *stored, large = [row["value"] for row in values(device)]
    expected = [0.3, 21.5, -1 / 3, 123456.789, 1.5e-7, 100.0, 1.234567e-11, 0.014807176]
    # Boards have single precision, and the server takes 16 decimals.
    assert stored == pytest.approx(expected, rel=1e-6, abs=1e-16)
    assert float(large) == pytest.approx(1e15, rel=1e-6)


def test_text_of_any_language_arrives(board, server, device):
    board.play("telemetry.any_language", server.port)
    text = {"größe": "½ л 水", "emoji": "🌡", "escaped": 'a"b\\c\nd\x01'}
    assert values(device) == [text]


def test_what_the_server_would_dislike_is_refused_before_it_is_sent(board, server):
    *errors, queued = board.play("telemetry.what_the_server_would_dislike", server.port)
    types = ["TypeError", "ValueError", "ValueError", "TypeError", "TypeError", "TypeError"]
    assert [kind for kind, _ in errors] == types + ["ValueError", "ValueError", "TypeError"]
    assert all("bad" in words for _, words in errors[:4])
    assert "key" in errors[4][1]
    assert queued == 0


def test_without_strict_the_bad_keys_alone_are_left_out(board, server, device):
    assert board.play("telemetry.leaving_out", server.port) == [None, 6]
    assert values(device) == [{"good": 1}]
    assert device.client_attributes == {"good": 2}


def test_what_is_too_large_is_split_or_refused(board, server, device):
    errors = board.play("telemetry.oversize", server.port)
    everything = {"key%d" % count: "x" * 20 for count in range(100)}
    rows = values(device)
    assert len(rows) > 1
    assert {key: row[key] for row in rows for key in row} == everything
    assert device.client_attributes == everything
    assert max(len(payload) for _, payload, _, _ in device.messages) <= 1024
    assert [kind for kind, _ in errors] == ["ValueError", "ValueError"]
    assert all("'large'" in words for _, words in errors)


def test_a_claim_arrives(board, server, device):
    kind, _ = board.play("telemetry.claim", server.port)
    assert device.claim == {"secretKey": "secret", "durationMs": 60000}
    assert kind == "TypeError"


# --- attributes ---


def test_attributes_are_sent_and_asked_for(board, server, device):
    device.push_attributes({"interval": 10, "unit": "s"})
    some, everything = board.play("attributes.asked_for", server.port)
    assert some == [{"client": {"version": "x"}, "shared": {"interval": 10}}, None]
    client, shared = {"version": "x", "uptime": 5}, {"interval": 10, "unit": "s"}
    assert everything == [{"client": client, "shared": shared}, None, "context"]


def test_a_question_without_answer_ends(board, server, device):
    server.faults.response_delay = 5
    answers = board.play("attributes.unanswered", server.port)
    assert answers == [[None, "TBTimeoutError", True], [None, "TBError", True]]


def test_changes_of_attributes_are_told(board, server, device):
    board.start("attributes.pushed", server.port)
    subscribed(device, ATTRIBUTES)
    device.push_attributes({"interval": 3, "unit": "s"})
    device.push_attributes({"unit": "min"})
    device.delete_attributes(["interval"])
    device.rpc("release")
    assert board.result() == [
        ["one", {"interval": 3, "unit": "s"}],
        ["all", {"interval": 3, "unit": "s"}, None, "context"],
        ["all", {"unit": "min"}, None, "context"],
        ["one", {"deleted": ["interval"]}],
        ["all", {"deleted": ["interval"]}, None, "context"],
    ]


def test_shared_attributes_are_known_and_have_defaults(board, server, device):
    device.push_attributes({"unit": "s"})
    board.start("attributes.shared", server.port)
    board.told("known")
    device.push_attributes({"interval": 3})
    device.delete_attributes(["interval"])
    device.rpc("release")
    seen = board.result()
    assert seen[0] == [None, 10]
    assert seen[1:] == [["s", 10], ["s", 3], ["s", 10]]


# --- remote procedure calls ---


def test_rpcs_are_answered_by_the_functions_of_their_names(board, server, device):
    board.start("rpcs.by_name", server.port)
    assert device.rpc("add", [2, 3]) == 5
    assert device.rpc("echo", {"größe": [1.5, None, "x"]}) == {"größe": [1.5, None, "x"]}
    assert device.rpc("echo") is None
    assert device.rpc("fail") == {"error": "RuntimeError: on purpose"}
    assert "bytes" in device.rpc("unsendable")["error"]
    assert "never heard of" in device.rpc("never heard of")["error"]
    assert device.rpc("release") is None
    assert board.result() == 2  # handlers that failed: one raised, one returned bytes


def test_rpcs_are_answered_by_one_handler_at_once_or_later(board, server, device):
    board.start("rpcs.by_one_handler", server.port)
    assert device.rpc("anything", 5) == {"method": "anything"}
    assert device.rpc("fail") == {"error": "ValueError: on purpose"}
    assert device.rpc("later") == {"now": True}
    device.rpc("release")
    assert board.result() == [
        ["anything", 5, "context"],
        ["fail", None, "context"],
        ["later", None, "context"],
    ]


def test_rpcs_of_the_device_are_answered_or_time_out(board, server, device):
    device.on_client_rpc = lambda method, params: {"asked": [method, params]}
    board.start("rpcs.of_ours", server.port)
    board.told("answered")
    device.on_client_rpc = None
    device.rpc("release")
    first, answers = board.result()
    assert answers[0] == [first, {"asked": ["getTime", {"zone": "UTC"}]}, None]
    assert answers[1] == [answers[1][0], None, "TBTimeoutError"]
    assert answers[1][0] > first


# --- outages ---


def cut(proxy, device, way, after, how):
    """Cut behind the next bytes of the device's conversation; it comes back."""
    connects = device.connects
    getattr(proxy, way).cut(after, how)
    assert device.wait(lambda d: d.connects > connects and d.online, timeout=10)


def test_nothing_is_lost_by_connections_that_are_cut_again_and_again(board, device, proxy):
    board.start("outages.numbered_readings", proxy.port)
    board.told("online")
    for way, after, how in (
        ("to_server", 0, RST),
        ("to_server", 47, FIN),  # in the middle of a packet
        ("to_client", 1, RST),
        ("to_client", 3, FIN),
        ("to_server", 101, RST),
    ):
        cut(proxy, device, way, after, how)
    device.rpc("release")
    sent, dropped = board.result()
    assert dropped == 0
    assert numbers(device, "number") == list(range(sent))


def test_the_outbox_is_replayed_in_order(board, server, device):
    board.start("outages.replay", server.port)
    board.told("online")
    server.stop_listening()
    queued_ms = time.time() * 1000
    assert board.told("queued") == 11
    time.sleep(0.15)  # so long that each tells its own time
    server.listen_again()
    back_ms = time.time() * 1000
    board.result()
    assert numbers(device, "number") == list(range(11))
    assert device.client_attributes == {"between": True}
    late = [ts for ts, row in device.telemetry if row["number"] > 0]
    assert late == sorted(set(late))
    assert queued_ms - 1500 < late[0]  # a board's clock has whole seconds
    assert late[-1] < back_ms


def test_packets_that_the_socket_takes_in_parts_arrive_whole(board, device, proxy):
    board.start("outages.stalled", proxy.port)
    board.told("online")
    subscribed(device, RPC_REQUEST + "+")
    proxy.to_server.held = True
    device.push_rpc("release")
    assert board.told("queued")
    proxy.to_server.held = False
    assert board.result() == 1
    assert numbers(device, "number") == list(range(8))
    assert {row["text"] for row in values(device)} == {"x" * 20000}


def test_polls_without_memory_lose_nothing(board, server, device):
    error, connects = board.play("outages.no_memory", server.port)
    assert error == (None if board.about[0] == "cpython" else "MemoryError")
    assert connects == 1
    assert numbers(device, "number") == list(range(40))


def test_a_full_queue_tells_what_it_drops(board, server, device):
    told = board.play("outages.full_queue", server.port)
    telemetry = "v1/devices/me/telemetry"
    queue_full = "queue full: 4 messages, queue_size=4: connect() was not called"
    assert [drop[0] for drop in told["told"]] == [telemetry] * 3
    assert [drop[1] for drop in told["told"]] == told["numbers"][:3]
    assert [json.loads(drop[2]) for drop in told["told"]] == [{"number": n} for n in range(3)]
    assert [drop[3] for drop in told["told"]] == [queue_full] * 3
    assert told["stats"]["dropped"] == 3
    assert numbers(device, "number") == [3, 4, 5]
    assert device.client_attributes == {"kept": True}


def test_after_an_outage_the_device_listens_as_before(board, server, device):
    board.start("outages.late_subscriber", server.port)
    board.told("online")
    device.disconnect(rst=True)
    assert device.wait(lambda d: d.connects == 2 and ATTRIBUTES in d.subscriptions)
    device.push_attributes({"interval": 3})
    device.rpc("release")
    assert board.result() == [{"interval": 3}]


def test_readings_keep_their_order_when_the_clock_is_set_back(board, server, device):
    now_ms = time.time() * 1000
    board.play("outages.clock_set_back", server.port)
    (wrong, *right) = [ts for ts, _ in device.telemetry]
    assert numbers(device, "number") == [0, 1, 2]
    assert abs(wrong - now_ms - 3600000) < 5000
    assert right == sorted(set(right))
    assert all(abs(ts - now_ms) < 5000 for ts in right)


def test_ticks_may_begin_again(board, server, device):
    server.faults.response_delay = 5
    told = board.play("outages.ticks_that_wrap", server.port)
    assert told == {"wrapped": True, "errors": ["TBTimeoutError"], "connects": 1}
    assert values(device) == [{"still": "there"}]


# --- odd bytes, odd servers ---


def test_a_session_goes_well_in_pieces_of_one_byte(board, device, proxy):
    device.push_attributes({"text": "y" * 300})
    proxy.to_server.chunk = proxy.to_client.chunk = 1
    board.start("odd_servers.chatter", proxy.port)
    assert device.rpc("length", "z" * 300) == 300
    device.rpc("release")
    assert board.result() == [{"shared": {"text": "y" * 300}}]
    assert values(device) == [{"text": "x" * 500}]


GARBAGE = {
    "no such packet": b"\x00\x00",
    "a packet of a client": b"\x82\x05\x00\x01\x00\x00\x00",
    "an endless length": b"\x30\xff\xff\xff\xff\xff",
    "a topic behind the end": b"\x30\x03\x00\x09a",
    "a topic that is no text": b"\x30\x04\x00\x02\xff\xfe",
    "an empty acknowledgement": b"\x40\x00",
    "a large acknowledgement": b"\x40\xff\x7f" + bytes(2000),
    "a quality of service of 3": b"\x36\x05\x00\x01a\x00\x01",
}


def test_after_garbage_it_connects_anew(board, server, device):
    board.start("odd_servers.until_released", server.port)
    board.told("online")
    for count, data in enumerate(GARBAGE.values(), 1):
        assert device.wait(lambda d, count=count: len(d.telemetry) == count)
        server.inject(data)
    device.rpc("release")
    told = board.result()
    for kind, words in told["reasons"]:
        assert kind == "TBError"
        assert words.startswith("protocol: ")
    assert len(told["reasons"]) == len(GARBAGE)
    assert told["changes"] == []


NOT_EXPECTED = [
    (ATTRIBUTES, b"{"),
    (ATTRIBUTES, b""),
    (ATTRIBUTES, b"[1]"),
    (ATTRIBUTES, b"null"),
    (ATTRIBUTES, b'{"a": x}'),
    (ATTRIBUTES, b'{"deleted": [1]}'),
    (ATTRIBUTES, b"[" * 1500),
    (ATTRIBUTES + "/response/7", b"{}"),
    (ATTRIBUTES + "/response/x", b"{}"),
    (RPC_REQUEST + "7", b"{"),
    (RPC_REQUEST + "8", b"{}"),
    (RPC_REQUEST + "9", b'{"method": 5}'),
    (RPC_REQUEST + "x", b'{"method": "release"}'),
    (RPC_REQUEST, b'{"method": "release"}'),
    (RPC_REQUEST + "1/2", b'{"method": "release"}'),
    ("v1/devices/me/rpc/response/7", b"{}"),
    ("v1/devices/me/telemetry", b"{}"),
    ("elsewhere", b"{}"),
]


def test_messages_that_make_no_sense_are_counted_and_the_connection_stays(board, server, device):
    board.start("odd_servers.until_released", server.port)
    board.told("online")
    subscribed(device, RPC_REQUEST + "+")
    subscribed(device, ATTRIBUTES)
    for topic, payload in NOT_EXPECTED:
        server.inject(mqtt311.publish(topic, payload, 0, 0))
    device.push_attributes({"good": 1})
    device.rpc("release")
    told = board.result()
    assert told["stats"]["unexpected"] == len(NOT_EXPECTED)
    assert told["stats"]["handler_errors"] == 0
    assert told["changes"] == [{"good": 1}]
    assert told["reasons"] == []
    assert device.connects == 1


def test_a_message_that_is_too_large_is_thrown_away_and_the_connection_stays(board, server, device):
    board.start("odd_servers.until_released", server.port)
    board.told("online")
    subscribed(device, ATTRIBUTES)
    device.push_attributes({"text": "x" * 5000})
    device.push_attributes({"text": "y" * 1900})
    device.rpc("release")
    told = board.result()
    assert told["changes"] == [{"text": "y" * 1900}]
    assert told["stats"]["oversize"] == 1
    assert device.connects == 1


# --- any broker ---

ECHOED = [
    ["room/1/temperature", "21"],
    ["all/of/this", "größer"],
    ["all", ""],
    ["room/2/temperature", "x" * 5000],
]


@pytest.fixture(scope="session")
def der(certificates, tmp_path_factory):
    """Call it with PEM files: the same as DER, which MicroPython's mbedTLS wants."""
    folder = tmp_path_factory.mktemp("der")

    def convert(path):
        if path is None:
            return None
        lines = Path(path).read_text().splitlines()
        body = "".join(line for line in lines if not line.startswith("-----"))
        target = folder / Path(path).name
        target.write_bytes(base64.b64decode(body))
        return str(target)

    return convert


@pytest.fixture
def tls(board, runtime, der):
    """Call it with an authority and a client certificate: the option *tls* of a scenario."""
    implementation, _, _, has_tls = board.about
    if not has_tls:
        pytest.skip("this %s has no module ssl" % implementation)

    def option(authority, pair=(None, None)):
        files = [authority, *pair]
        return files if implementation == "cpython" else [der(file) for file in files]

    return option


def test_mosquitto_echoes(board, mosquitto):
    assert sorted(board.play("brokers.echo", mosquitto.plain)) == sorted(ECHOED)


def test_mosquitto_publishes_the_last_will(board, mosquitto):
    with FaultProxy(mosquitto.plain) as proxy:
        board.start("brokers.will", proxy.port, direct_port=mosquitto.plain)
        board.told("online")
        proxy.cut_now(RST)
        assert board.result() == ["gone"]


def test_a_password_is_accepted(board, mosquitto):
    settings = {"username": "user", "password": "pw"}
    told = board.play("brokers.echo", mosquitto.password, settings=settings)
    assert sorted(told) == sorted(ECHOED)


def test_a_wrong_password_is_refused_in_words(board, mosquitto):
    settings = {"username": "user", "password": "wrong"}
    kind, words = board.play("brokers.refusal", mosquitto.password, settings=settings)
    assert kind == "TBRefusedError"
    assert "refused the username" in words


def test_tls_with_an_authority(board, mosquitto, certificates, tls):
    told = board.play("brokers.echo", mosquitto.tls, tls=tls(certificates.ca))
    assert sorted(told) == sorted(ECHOED)


def test_tls_with_another_authority_is_refused_in_words(board, mosquitto, certificates, tls):
    option = tls(certificates.other_ca)
    _, words = board.play("brokers.refusal", mosquitto.tls, tls=option)
    assert "not trusted" in words


def test_tls_with_a_client_certificate(board, mosquitto, certificates, tls):
    option = tls(certificates.ca, certificates.client)
    told = board.play("brokers.echo", mosquitto.mutual, tls=option, settings={"access_token": None})
    assert sorted(told) == sorted(ECHOED)


def test_tls_without_the_client_certificate_is_refused_in_words(
    board, mosquitto, certificates, tls, runtime
):
    option = tls(certificates.ca)
    told = board.play(
        "brokers.refusal", mosquitto.mutual, tls=option, settings={"access_token": None}
    )
    words = ["client certificate"]
    if runtime.name.startswith("micropython"):
        words.append("TLS failed")  # it may write into the closed connection, and read no alert
    assert any(word in told[1] for word in words), told


# --- nothing happens ---


@pytest.mark.parametrize("companions", [0, 3])
def test_an_idle_poll_takes_nothing_from_the_heap(board, server, device, runtime, companions):
    used = board.play("idle.polls", server.port, companions=companions)
    print("1000 idle polls on %s with %d companions: %d" % (runtime.name, companions, used))
    assert used <= (100 if runtime.is_cpython else 0)  # CPython: blocks that stay
