# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What users of other MQTT and ThingsBoard clients complained about, each as what they wanted.

The comment above a test names the public threads. Many of these contracts have tests of their own
in more detail; here each is seen from outside, in one piece.
"""

import socket
import statistics
import time
import tracemalloc

import pytest

from clients import (
    ATTRIBUTES,
    Clock,
    Notes,
    flush,
    lose,
    offline_client,
    online_client,
    subscribed,
    values,
)
from faults.proxy import FaultProxy
from faults.scripted_broker import CONNECT, ScriptedBroker
from faults.sockets import CountingPool
from helpers import run_for, run_until
from tb_device_mqtt import TBDeviceMqttClient, TBRefusedError, TBTimeoutError

# --- the main loop ---


# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/issues/241
# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/issues/138
# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/issues/148
# https://github.com/adafruit/circuitpython/issues/7495
def test_my_neopixels_do_not_freeze_while_nothing_arrives(server, device):
    with online_client(server) as client:
        flush(client)
        took_ms = []
        for _ in range(3000):
            started = time.perf_counter()
            client.check_for_msg()
            took_ms.append((time.perf_counter() - started) * 1000)
    assert statistics.median(took_ms) < 0.1
    assert sorted(took_ms)[-30] < 1  # all but one in a hundred, whatever else this computer does


# https://github.com/adafruit/circuitpython/issues/10886
# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/issues/248
def test_my_program_is_not_killed_by_what_the_network_sends(server, device):
    with online_client(server) as client:
        for strange in (b"\x00\x00", b"\x30\x01\x00", b"\xf0\x00", b"SSH-2.0" * 20):
            run_until(client, lambda: client.connected)
            server.inject(strange)
            run_until(client, lambda: not client.connected)
        client.send_telemetry({"alive": True})
        flush(client)
    assert values(device) == [{"alive": True}]


# https://github.com/thingsboard/thingsboard/issues/1650
# https://github.com/micropython/micropython/issues/2568
# https://github.com/manuargue/thingsboard-micropython/issues/4
def test_nothing_waits_for_ever_and_my_watchdog_is_fed_meanwhile():
    fed = Notes()

    def accept_and_fall_silent(connection):
        if connection.number == 1:
            connection.expect(CONNECT)
        else:
            connection.accept()
        connection.read_until_end()

    with ScriptedBroker(accept_and_fall_silent) as broker, offline_client(broker) as client:
        client.idle = fed
        started = time.monotonic()
        with pytest.raises(TBTimeoutError):
            client.connect(timeout=0.2)
        client.disconnect()
        client.connect(timeout=5)
        client.send_telemetry({"n": 1})
        assert client.wait_for_msg(0.2) == 0
        assert client.flush(0.2) is False
        assert 0.6 < time.monotonic() - started < 4
    assert len(fed.calls) > 50


# --- coming back ---


# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/issues/222
# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/pull/224
def test_after_a_wifi_drop_it_connects_again_and_so_can_i(server, device):
    with FaultProxy(server.port) as air, online_client(air, keep_alive=1) as client:
        air.black_hole()  # out of range: nobody says goodbye
        run_until(client, lambda: not client.connected)
        air.heal()
        run_until(client, lambda: client.connected)
        air.black_hole()
        run_until(client, lambda: not client.connected)
        air.heal()
        assert client.connect() is True
        client.send_telemetry({"back": True})
        flush(client)
    assert values(device) == [{"back": True}]


# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/issues/242
def test_fifty_reconnects_do_not_run_out_of_sockets(server, device):
    pool = CountingPool()
    with online_client(server, socket_pool=pool) as client:
        client._link.backoff_ms = 0
        for _ in range(50):
            lose(client, device)
            assert pool.opened == pool.closed
            run_until(client, lambda: client.connected)
            assert pool.opened - pool.closed == 1
    assert device.connects == 51


# https://github.com/thingsboard/thingsboard-client-sdk/issues/271
# https://github.com/thingsboard/thingsboard-gateway/pull/2140
def test_it_recovers_from_an_internet_outage_without_a_reboot_or_a_gap(server, device):
    class Internet(CountingPool):
        is_down = False

        def getaddrinfo(self, *arguments):
            if self.is_down:
                raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")
            return socket.getaddrinfo(*arguments)

    internet = Internet()
    with online_client(server, socket_pool=internet) as client:
        internet.is_down = True
        lose(client, device)
        for number in range(10):
            client.send_telemetry({"number": number})
            run_for(client, 0.1)
        assert client.stats["connects"] > 2
        internet.is_down = False
        flush(client, timeout=10)
    assert [row["number"] for row in values(device)] == list(range(10))


# https://github.com/thingsboard/thingsboard/issues/2898
# https://github.com/thingsboard/thingsboard-gateway/issues/1061
# https://github.com/thingsboard/thingsboard-gateway/pull/1981
def test_after_a_reconnect_rpc_and_attributes_work_and_not_telemetry_alone(server, device):
    changes = Notes()
    with online_client(server) as client:
        client.rpc("double")(lambda number: 2 * number)
        client.subscribe_to_attribute("interval", changes)
        for number in range(3):
            lose(client, device)
            run_until(client, lambda: client.connected)
            reply = device.call_rpc("double", number)
            run_until(client, reply.done)
            assert reply.result() == 2 * number
            device.push_attributes({"interval": number})
            run_until(client, lambda: changes.calls)
            assert changes.calls.pop()[0] == {"interval": number}


# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/issues/68
# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/issues/70
# https://github.com/micropython/micropython-lib/issues/909
# https://github.com/micropython/micropython-lib/issues/210
def test_a_program_that_only_listens_stays_connected(mosquitto):
    heard = Notes()
    options = {"access_token": None, "port": mosquitto.plain, "keep_alive": 1}
    with TBDeviceMqttClient("127.0.0.1", **options) as client:
        client.subscribe("quiet/room", heard)
        run_for(client, 3)
        assert client.stats["connects"] == 1
        client.publish("quiet/room", "hello")
        run_until(client, lambda: heard.calls)


# https://github.com/adafruit/Adafruit_CircuitPython_AzureIoT/issues/53
# https://github.com/thingsboard/thingsboard-client-sdk/issues/247
# https://github.com/adafruit/Adafruit_CircuitPython_ESP32SPI/issues/102
# https://shallowsky.com/blog/hardware/esp32-reconnect.html
def test_a_refused_token_is_explained_and_not_hammered_and_my_radio_can_be_reset(server, device):
    reset_radio = Notes()
    with offline_client(server, access_token="expired") as client:
        client._link.backoff_ms = 1000  # as it is by itself
        client.on_state = reset_radio
        with pytest.raises(TBRefusedError, match="access token") as refused:
            client.connect()
        assert refused.value.code == 5
        run_for(client, 2)
        assert server.accepted == 1
        assert [call[2] for call in reset_radio.calls] == ["waiting", "connecting", "waiting"]
        assert reset_radio.calls[-1][3] is refused.value


# https://github.com/thingsboard/thingsboard-python-client-sdk/issues/2
# https://github.com/thingsboard/thingsboard-python-client-sdk/issues/52
# https://github.com/thingsboard/thingsboard-python-client-sdk/issues/100
def test_connect_returns_when_connected_and_what_i_sent_before_is_not_lost(server, device):
    with offline_client(server) as client:
        client.send_telemetry({"early": True})
        assert not client.is_connected()
        assert client.connect() is True
        assert client.connected
        assert client.is_connected()
        assert device.online
        flush(client)
        device.disconnect()
        run_until(client, lambda: not client.is_connected(), timeout=1)
    assert values(device) == [{"early": True}]


# --- RPC ---


# https://github.com/thingsboard/thingsboard-client-sdk/issues/22
# https://github.com/thingsboard/thingsboard-client-sdk/issues/80
def test_i_can_publish_inside_an_rpc_handler_and_the_reply_still_arrives(server, device):
    with online_client(server) as client:

        @client.rpc("setLamp")
        def set_lamp(on):
            client.send_telemetry({"lamp": on})
            client.send_attributes({"lamp": on})
            client.flush(1)
            return {"lamp": on}

        client.send_telemetry({"in_flight": True})
        reply = device.call_rpc("setLamp", True)
        run_until(client, reply.done)
        flush(client)
        assert reply.result() == {"lamp": True}
    assert values(device) == [{"in_flight": True}, {"lamp": True}]
    assert device.client_attributes == {"lamp": True}


# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/issues/192
def test_an_rpc_between_subscribe_and_suback_is_answered(server, device):
    server.faults.push_before_suback = True
    reply = device.call_rpc("get", 5)
    with offline_client(server) as client:
        client.rpc("get")(lambda params: params)
        client.connect()
        run_until(client, reply.done)
        assert device.connects == 1
    assert reply.result() == 5


# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/issues/215
# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/pull/218
# https://github.com/adafruit/Adafruit_CircuitPython_AWS_IOT/issues/23
def test_many_rpcs_at_once_do_not_nest_until_the_stack_is_exhausted(server, device):
    nested, deepest = [], []
    replies = [device.call_rpc("work", number) for number in range(20)]
    with offline_client(server) as client:

        @client.rpc("work")
        def work(number):
            nested.append(number)
            deepest.append(len(nested))
            client.send_telemetry({"number": number})
            client.check_for_msg()
            client.wait_for_msg(0.01)
            nested.pop()
            return number

        client.connect()
        run_until(client, lambda: all(reply.done() for reply in replies), timeout=10)
    assert [reply.result() for reply in replies] == list(range(20))
    assert max(deepest) == 1


# https://github.com/thingsboard/thingsboard-client-sdk/issues/154
def test_what_was_commanded_while_my_board_slept_is_done_when_it_wakes(server, device):
    with online_client(server) as client:
        client.rpc("water")(lambda seconds: {"watered": seconds})
        client.shared.setdefault("interval", 60)
        subscribed(client, device, ATTRIBUTES)
        client.disconnect()  # and sleep
        reply = device.call_rpc("water", 5)
        device.push_attributes({"interval": 10})
        client.connect()
        run_until(client, lambda: reply.done() and client.shared["interval"] == 10)
    assert reply.result() == {"watered": 5}


# --- telemetry and attributes ---


# https://github.com/peterhinch/micropython-mqtt/issues/54
def test_on_a_bad_link_nothing_is_published_twice_and_little_is_in_flight(server, device):
    server.faults.puback_delay = 0.2
    with online_client(server) as client:
        for number in range(40):
            client.send_telemetry({"number": number})
        flush(client, timeout=10)
        log = [name for _, _, name in server.packets]
    assert [row["number"] for row in values(device)] == list(range(40))
    before_first_puback = log[: log.index("PUBACK")]
    assert before_first_puback.count("PUBLISH") <= 32
    assert client.stats["resent"] == 0


# https://github.com/thingsboard/thingsboard/issues/13978
# https://github.com/thingsboard/thingsboard/issues/581
# https://github.com/thingsboard/thingsboard-client-sdk/issues/76
def test_what_was_measured_offline_has_the_time_when_it_was_measured(server, device):
    with online_client(server) as client:
        server.stop_listening()
        run_until(client, lambda: not client.connected)
        before_ms = time.time() * 1000
        client.send_telemetry({"temperature": 20})
        client.send_telemetry({"ts": 1700000000000, "values": {"temperature": 19}})
        run_for(client, 1.5)
        server.listen_again()
        flush(client, timeout=10)
    (ts, first), (own_ts, second) = device.telemetry
    assert (first["temperature"], second["temperature"]) == (20, 19)
    assert abs(ts - before_ms) < 200
    assert own_ts == 1700000000000


# https://github.com/thingsboard/thingsboard/issues/920
def test_without_a_clock_the_times_are_right_as_soon_as_the_clock_is_set(
    server, device, monkeypatch
):
    clock = Clock(monkeypatch)
    clock.epoch_s = 5  # a board without a clock starts in 1970, here 5 s ago
    with offline_client(server) as client:
        client.send_telemetry({"n": 1})
        clock.skip(60)
        client.send_telemetry({"n": 2})
        clock.skip(60)
        now_s = int(time.time())
        clock.epoch_s = now_s  # somebody has asked a time server
        client.connect()
        flush(client)
    ages_s = [now_s - ts / 1000 for ts, _ in device.telemetry]
    assert [round(age_s, -1) for age_s in ages_s] == [120, 60]


# https://github.com/thingsboard/thingsboard-client-sdk/issues/197
def test_i_can_get_all_shared_attributes_without_naming_them(server, device):
    device.push_attributes({"interval": 10, "mode": "auto", "limits": {"high": 30}})
    answer = Notes()
    with online_client(server) as client:
        client.request_attributes(callback=answer)
        run_until(client, lambda: answer.calls)
    shared = {"interval": 10, "mode": "auto", "limits": {"high": 30}}
    assert answer.calls == [({"shared": shared}, None)]


# https://github.com/thingsboard/thingsboard-client-sdk/issues/212
# https://github.com/thingsboard/thingsboard-client-sdk/issues/216
# https://github.com/thingsboard/thingsboard-client-sdk/issues/102
# https://github.com/thingsboard/thingsboard-client-sdk/issues/103
# https://github.com/thingsboard/thingsboard-client-sdk/issues/88
def test_no_limit_is_met_in_silence(server, device):
    many = {"key%d" % number: "x" * 100 for number in range(300)}
    dropped = Notes()
    with online_client(server, queue_size=10, queue_bytes=100000) as client:
        client.on_drop = dropped
        client.send_telemetry(many)
        flush(client)
        with pytest.raises(ValueError, match="'blob': 20011 bytes"):
            client.send_telemetry({"blob": "x" * 20000})
        for _ in range(100):
            client.subscribe_to_attribute("interval", Notes())
        lose(client, device)
        for number in range(12):
            client.send_telemetry({"number": number})
        flush(client)
    stored = [row for row in values(device) if "number" not in row]
    assert {key: value for row in stored for key, value in row.items()} == many
    assert len(dropped.calls) == client.stats["dropped"] == 2
    assert dropped.calls[0][-1] == "queue full: 10 messages, queue_size=10"


# https://github.com/thingsboard/thingsboard/issues/3677
# https://github.com/thingsboard/thingsboard/issues/11232
# https://github.com/thingsboard/thingsboard/issues/9707
def test_a_payload_that_the_server_dislikes_does_not_take_the_connection_with_it(server, device):
    with online_client(server) as client:
        for bad in (None, float("nan"), float("inf"), b"bytes"):
            with pytest.raises((TypeError, ValueError), match="broken"):
                client.send_telemetry({"temperature": 20, "broken": bad})
        with pytest.raises(ValueError):
            client.send_telemetry([])
        run_for(client, 0.1)
        assert device.connects == 1


# The same threads: a message of which only the server knows that it dislikes it.
def test_a_message_that_costs_the_connection_each_time_is_given_up(server, device):
    server.faults.close_on = b"poison"
    dropped = Notes()
    with online_client(server) as client:
        client._link.backoff_ms = 1
        client.on_drop = dropped
        for text in ("first", "poison", "last"):
            client.send_telemetry({"text": text})
        flush(client, timeout=20)
    assert [row["text"] for row in values(device)] == ["first", "last"]
    assert len(dropped.calls) == 1
    assert b"poison" in dropped.calls[0][4]


# https://github.com/thingsboard/thingsboard-python-client-sdk/issues/89
# https://github.com/thingsboard/thingsboard-python-client-sdk/issues/96
def test_a_rate_limit_delays_the_queue_and_not_my_program(server, device):
    with online_client(server) as client:
        client._link.backoff_ms = 100
        device.rate_limited = True
        longest_ms = 0
        for number in range(20):
            started = time.perf_counter()
            client.send_telemetry({"number": number})
            longest_ms = max(longest_ms, (time.perf_counter() - started) * 1000)
            run_for(client, 0.02)
        device.rate_limited = False
        flush(client, timeout=20)
    assert longest_ms < 50
    assert [row["number"] for row in values(device)] == list(range(20))


# --- memory and TLS ---


# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/issues/101
# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/issues/82
def test_a_broken_length_does_not_eat_all_memory(server, device):
    with online_client(server, keep_alive=1) as client:
        tracemalloc.start()
        try:
            server.inject(b"\x30\xff\xff\xff\x7f\x00\x01a")  # a message of 256 MB begins
            run_until(client, lambda: not client.connected)
            run_until(client, lambda: client.connected)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        client.send_telemetry({"alive": True})
        flush(client)
    assert peak_bytes < 1000000
    assert values(device) == [{"alive": True}]


# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/issues/219
# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/issues/83
# https://github.com/adafruit/Adafruit_CircuitPython_MiniMQTT/pull/164
# https://github.com/adafruit/circuitpython/issues/9174
# https://github.com/thingsboard/thingsboard-python-client-sdk/issues/14
def test_tls_is_one_argument_and_forgetting_it_is_explained(mosquitto, certificates):
    heard = Notes()
    with TBDeviceMqttClient("localhost", mosquitto.tls, "TOKEN", tls=certificates.ca) as client:
        client.subscribe("safe/room", heard)
        client.publish("safe/room", "hello")
        run_until(client, lambda: heard.calls)
    client = TBDeviceMqttClient("localhost", mosquitto.tls, "TOKEN")
    with pytest.raises(OSError, match="TLS"):
        client.connect()
    client.disconnect()
