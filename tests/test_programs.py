# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Programs as people write them: what they hand over is stored by the server, or they are told.

"Stored" is what the database keeps: of each key one value per millisecond, the later one.
"""

import contextlib
import ssl
import threading
import time

import pytest

from clients import (
    ATTRIBUTES,
    Clock,
    Notes,
    lose,
    offline_client,
    online_client,
    subscribed,
)
from fakes import Clock as MemoryClock
from fakes import MemoryServer
from faults.proxy import FIN, RST, FaultProxy
from faults.scripted_broker import DISCONNECT, SUBSCRIBE, ScriptedBroker, publish
from helpers import run_until, wait_until
from local_server import LocalServer
from tb_device_mqtt import TBDeviceMqttClient

UNSET_S = 946684800  # where the clock of a board begins: the year 2000
APART_S = 0.03
CLOSE_MS = 1500  # how far a time may be off: a busy computer


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture(params=("set", "unset"))
def any_clock(request, clock):
    """The clock of the board, which is set or not."""
    if request.param == "unset":
        clock.epoch_s = UNSET_S
    return clock


@pytest.fixture
def proxy(server):
    """The way to the server."""
    with FaultProxy(server.port) as running:
        yield running


@pytest.fixture
def far(server, device, proxy):
    """A client that is online by way of *proxy*."""
    with online_client(server, port=proxy.port) as client:
        yield client


def stored(device, key="n"):
    """The values of *key* that the database keeps, in the order of their times."""
    return [value for _, value in device.stored(key)]


def poll_for(client, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client.check_for_msg()
        time.sleep(0.001)


def send_two(client, pause):
    """Two readings, 30 ms apart."""
    client.send_telemetry({"n": 0})
    pause(APART_S)
    client.send_telemetry({"n": 1})


def all_sent(client):
    """Poll until the server has acknowledged everything."""
    assert client.flush(20), (client.state, client.last_error, client.stats)


# --- readings that follow each other closely ---


def test_two_readings_before_connack_are_both_stored(server, offline, device, any_clock):
    server.faults.connack_delay = 0.1
    offline.connect(timeout=0)
    run_until(offline, lambda: offline.state == "connecting")
    offline.check_for_msg()
    send_two(offline, lambda seconds: poll_for(offline, seconds))
    assert not offline.connected
    all_sent(offline)
    assert stored(device) == [0, 1]


def test_two_readings_behind_a_short_cut_are_both_stored(client, device, any_clock):
    for number in range(5):
        lose(client, device)
        client.send_telemetry({"n": 2 * number})
        poll_for(client, APART_S / 3)
        client.send_telemetry({"n": 2 * number + 1})
        all_sent(client)
    assert stored(device) == list(range(10))


def test_two_readings_that_the_network_holds_up_for_a_moment_are_both_stored(
    proxy, far, device, any_clock
):
    proxy.to_server.held = True
    send_two(far, lambda seconds: poll_for(far, seconds))
    proxy.to_server.held = False
    all_sent(far)
    assert stored(device) == [0, 1]


def test_readings_that_a_busy_server_reads_at_once_are_all_stored(
    server, client, device, any_clock
):
    for number in range(5):
        server.hang()
        client.send_telemetry({"n": 2 * number})
        poll_for(client, APART_S)
        client.send_telemetry({"n": 2 * number + 1})
        server.go_on()
        all_sent(client)
    assert stored(device) == list(range(10))


@pytest.mark.parametrize("polls", [True, False])
def test_a_tight_loop_of_200_readings_is_stored(client, device, any_clock, polls):
    for number in range(200):
        client.send_telemetry({"n": number})
        if polls:
            client.check_for_msg()
    all_sent(client)
    assert stored(device) == list(range(200))
    assert device.connects == 1


@pytest.mark.parametrize("pause_ms", [1, 2, 3, 5])
def test_readings_some_milliseconds_apart_are_all_stored(client, device, any_clock, pause_ms):
    for number in range(100):
        client.send_telemetry({"n": number})
        client.check_for_msg()
        time.sleep(pause_ms / 1000)
    all_sent(client)
    assert stored(device) == list(range(100))


@pytest.mark.parametrize("round_trip_ms", [5, 80])
def test_a_burst_over_a_slow_way_is_stored(proxy, far, device, any_clock, round_trip_ms):
    proxy.round_trip(round_trip_ms / 1000)
    for number in range(40):
        far.send_telemetry({"n": number})
        far.check_for_msg()
        time.sleep(0.001)
    all_sent(far)
    assert stored(device) == list(range(40))


@pytest.mark.parametrize("is_online", [True, False])
def test_a_list_of_readings_of_one_key_is_stored(server, offline, device, any_clock, is_online):
    if is_online:
        offline.connect()
    offline.send_telemetry([{"n": number} for number in range(20)])
    offline.connect()
    all_sent(offline)
    assert stored(device) == list(range(20))


def test_a_list_of_readings_sent_by_a_handler_is_stored(client, device, any_clock):
    @client.rpc("measure")
    def measure(_):
        client.send_telemetry([{"n": number} for number in range(5)])
        client.send_telemetry({"n": 5})
        client.send_telemetry({"n": 6})

    reply = device.call_rpc("measure")
    run_until(client, reply.done)
    all_sent(client)
    assert stored(device) == list(range(7))


# --- the time that a reading tells ---


def lose_a_puback(server, client, device):
    """A reading arrives, its acknowledgement does not, and it is sent again."""
    server.faults.mute_puback = True
    client.send_telemetry({"n": 1})
    run_until(client, lambda: device.messages)
    server.faults.mute_puback = False
    poll_for(client, APART_S)
    lose(client, device)
    all_sent(client)


def test_a_reading_that_is_resent_is_stored_once_with_stamp_always(server, device, clock):
    clock.skip(3600)  # else both times could be one
    with online_client(server, stamp="always") as client:
        lose_a_puback(server, client, device)
    assert len(device.messages) == 2
    assert stored(device) == [1]


def test_a_reading_that_is_resent_tells_its_time_with_stamp_late(server, client, device, clock):
    clock.skip(3600)  # the clock of the board is wrong
    lose_a_puback(server, client, device)
    first, again = (ts for ts, _ in device.telemetry)
    assert first == pytest.approx(time.time() * 1000, abs=CLOSE_MS)
    assert again == pytest.approx(clock.time() * 1000, abs=CLOSE_MS)


def test_no_reading_tells_its_time_with_stamp_never(server, device, clock):
    clock.skip(3600)
    with offline_client(server, stamp="never") as client:
        client.send_telemetry([{"n": 10}, {"n": 11}])
        client.connect()
        for number in range(12, 20):
            client.send_telemetry({"n": number})
        lose_a_puback(server, client, device)
    assert b'"ts"' not in b"".join(payload for _, payload, _, _ in device.messages)
    assert stored(device)[:10] == list(range(10, 20))


@pytest.mark.parametrize("polls", ["often", "before it sends", "never"])
def test_a_reading_that_leaves_alone_and_at_once_gets_the_time_of_the_server(
    client, device, clock, polls
):
    clock.skip(3600)  # the clock of the board is wrong
    for number in range(8):
        if polls == "before it sends":
            client.check_for_msg()
        client.send_telemetry({"n": number})
        client.send_attributes({"status": "ok"})
        poll_for(client, 0.05) if polls == "often" else time.sleep(0.05)
    all_sent(client)
    for ts, _ in device.stored("n"):
        assert ts == pytest.approx(time.time() * 1000, abs=CLOSE_MS)
    assert stored(device) == list(range(8))


# --- programs that never poll ---


def send_100(client, pause_s=0.01):
    """The whole program, once it is connected."""
    for number in range(100):
        client.send_telemetry({"n": number})
        time.sleep(pause_s)


def test_a_program_that_never_polls_gets_all_its_readings_stored(offline, device, any_clock):
    offline.connect()
    send_100(offline)
    offline.disconnect()
    assert stored(device) == list(range(100))
    assert device.connects == 1
    assert offline.stats["dropped"] == 0


@pytest.mark.parametrize("how", [FIN, RST])
def test_a_program_that_never_polls_reconnects_after_a_cut(proxy, far, device, how):
    cut = threading.Timer(0.5, proxy.cut_now, (how,))
    cut.start()
    send_100(far, 0.04)  # a place for each message is there; the program is alone for four seconds
    cut.join()
    far.disconnect()
    assert device.connects == 2
    assert stored(device) == list(range(100))
    assert far.stats["dropped"] == 0


def test_a_program_that_never_polls_and_is_cut_off_is_told_what_was_lost(proxy, far, device):
    far.on_drop = dropped = Notes()
    cut = threading.Timer(0.3, proxy.cut_now)
    cut.start()
    send_100(far)
    cut.join()
    all_sent(far)
    told = [int(call[4].decode().split(":")[1][:-1]) for call in dropped.calls]
    assert sorted(told + stored(device)) == list(range(100))
    assert len(told) == far.stats["dropped"]


def test_messages_that_nobody_takes_do_not_keep_readings_from_being_stored(server, offline, device):
    attributes, executed = Notes(), Notes()
    offline.subscribe_to_all_attributes(attributes)
    offline.rpc("count")(executed)
    offline.connect()
    subscribed(offline, device, ATTRIBUTES)
    for number in range(100):
        offline.send_telemetry({"n": number})
        if number % 3 == 0:
            device.push_attributes({"interval": number})
            device.push_rpc("count", number, timeout=60)
        time.sleep(0.01)
    assert attributes.calls == executed.calls == []
    polls = 0
    while offline.pending_messages_count and polls < 10000:
        offline.check_for_msg()
        polls += 1
        time.sleep(0.0005)
    all_sent(offline)
    assert stored(device) == list(range(100))
    assert len(attributes.calls) >= 8
    assert executed.firsts == sorted(set(executed.firsts))
    assert offline.stats["unheard"] > 0
    assert device.connects == 1


def test_handlers_run_when_the_program_polls_and_never_inside_a_send(client, device):
    called = Notes()
    client.on_publish = called
    client.rpc("count")(called)
    subscribed(client, device, "v1/devices/me/rpc/request/+")
    device.push_rpc("count", 1)
    for number in range(20):
        client.send_telemetry({"n": number})
        time.sleep(0.01)
    assert called.calls == []
    client.check_for_msg()
    assert called.calls


# --- more than the queue holds ---

BASE_MS = 1700000000000


def test_a_list_of_150_readings_with_times_is_stored(client, device):
    client.send_telemetry([{"ts": BASE_MS + n, "values": {"n": n}} for n in range(150)])
    all_sent(client)
    assert stored(device) == list(range(150))
    assert client.stats["dropped"] == 0


def test_a_list_that_is_larger_than_the_queue_is_stored_while_online(client, device):
    text = "x" * 200
    readings = [{"ts": BASE_MS + n, "values": {"n": n, "text": text}} for n in range(150)]
    client.send_telemetry(readings)
    all_sent(client)
    assert stored(device) == list(range(150))


def test_250_calls_are_stored_in_order(client, device):
    ids = [client.send_telemetry({"n": number}) for number in range(250)]
    all_sent(client)
    assert ids == sorted(set(ids))
    assert stored(device) == list(range(250))
    assert [row["n"] for _, row in device.telemetry] == list(range(250))


def test_attributes_and_publishes_wait_for_room_too(client, device):
    for number in range(150):
        client.send_attributes({"a%d" % number: number})
        client.publish("any/topic", b"x" * 200)
    all_sent(client)
    assert len(device.client_attributes) == 150
    assert len(device.messages) == 300
    assert client.stats["dropped"] == 0


def test_a_burst_inside_a_handler_is_stored(client, device, any_clock):
    @client.rpc("measure")
    def measure(_):
        for number in range(150):
            client.send_telemetry({"n": number})
        return "done"

    reply = device.call_rpc("measure")
    run_until(client, reply.done)
    all_sent(client)
    assert reply.result() == "done"
    assert stored(device) == list(range(150))


def test_a_burst_over_a_slow_way_takes_no_longer_than_the_way(proxy, far, device, clock):
    proxy.round_trip(0.08)
    started = time.monotonic()
    for number in range(250):
        far.send_telemetry({"n": number})
    all_sent(far)
    assert stored(device) == list(range(250))
    assert time.monotonic() - started < 5


def test_queue_size_500_with_the_default_queue_bytes_loses_nothing_online(server, device):
    with online_client(server, queue_size=500) as client:
        for number in range(500):
            client.send_telemetry({"n": number, "text": "x" * 60})
        all_sent(client)
    assert stored(device) == list(range(500))


def reasons_of(options, count, server):
    """The reasons that a client tells which is offline and full."""
    with online_client(server, **options) as client:
        client.on_drop = dropped = Notes()
        server.stop_listening()
        run_until(client, lambda: not client.connected)
        for number in range(count):
            client.send_telemetry({"n": number, "text": "x" * 60})
        client.check_for_msg()
        assert len(dropped.calls) == client.stats["dropped"] > 0
        server.listen_again()
        all_sent(client)
    return {call[5] for call in dropped.calls}


def test_what_is_dropped_names_queue_size(server, device):
    reasons = reasons_of({"queue_bytes": 20000}, 80, server)
    assert reasons == {"queue full: 64 messages, queue_size=64"}
    assert stored(device) == list(range(16, 80))


def test_what_is_dropped_names_queue_bytes(server, device):
    (reason,) = reasons_of({"queue_size": 500}, 70, server)
    assert reason.endswith("queue_bytes=8192")
    kept = len(stored(device))
    assert "%d messages" % kept in reason
    assert stored(device) == list(range(70 - kept, 70))


@pytest.mark.parametrize(
    "options, words",
    [({"queue_size": 500}, "queue_bytes=8192"), ({"queue_bytes": 1 << 20}, "queue_size=64")],
)
def test_one_list_that_can_not_fit_is_refused_and_nothing_was_touched(
    server, device, options, words
):
    with offline_client(server, **options) as client:
        client.on_drop = dropped = Notes()
        client.max_message_bytes = 400
        client.send_telemetry({"n": 0})
        readings = [{"text": "x" * 300} for _ in range(70)]
        with pytest.raises(ValueError, match=words):
            client.send_telemetry(readings)
        assert client.pending_messages_count == 1
        client.connect()
        all_sent(client)
        assert dropped.calls == []
        assert client.send_telemetry({"n": 1}) == 2  # no number was used up either
        all_sent(client)
    assert stored(device) == [0, 1]


def test_the_same_list_is_stored_while_online(server, device):
    with online_client(server) as client:
        client.max_message_bytes = 400
        client.send_telemetry([{"n": number, "text": "x" * 300} for number in range(70)])
        all_sent(client)
    assert stored(device) == list(range(70))


@pytest.mark.parametrize("was_connected", [False, True])
def test_a_program_that_forgot_connect_is_told(server, offline, device, was_connected):
    if was_connected:
        offline.connect()
        offline.disconnect()
    offline.on_drop = dropped = Notes()
    for number in range(65):
        offline.send_telemetry({"n": number})
    offline.check_for_msg()
    (call,) = dropped.calls
    assert call[5] == "queue full: 64 messages, queue_size=64: connect() was not called"


# --- a server that is online and acknowledges nothing ---


def fill(client, server):
    """As many readings as the queue holds, which the server takes and does not acknowledge."""
    server.faults.mute_puback = True
    for number in range(64):
        client.send_telemetry({"n": number})


def seconds_of(call):
    started = time.monotonic()
    call()
    return time.monotonic() - started


def test_a_server_that_acknowledges_nothing_is_waited_for_once(server, client, device):
    client.on_drop = dropped = Notes()
    fill(client, server)
    assert 1 < seconds_of(lambda: client.send_telemetry({"n": 64})) < 3.5
    assert seconds_of(lambda: [client.send_telemetry({"n": n}) for n in range(65, 75)]) < 0.5
    client.check_for_msg()
    assert [call[5] for call in dropped.calls] == ["queue full: 64 messages, queue_size=64"] * 11
    assert client.pending_messages_count == 64
    assert client.connected


def test_the_wait_calls_idle_for_the_watchdog(server, client, device):
    fill(client, server)
    client.idle = idle = Notes()
    client.send_telemetry({"n": 64})
    assert len(idle.calls) > 100


def test_who_waits_for_room_goes_on_as_soon_as_there_is_some(server, client, device):
    fill(client, server)
    server.faults.mute_puback = False
    cut = threading.Timer(0.2, device.disconnect)
    cut.start()
    took = seconds_of(lambda: client.send_telemetry({"n": 64}))
    cut.join()
    assert took < 1.5


# --- programs that leave at once ---


def send_4(client):
    for number in range(4):
        client.send_telemetry({"n": number})


def is_all_there(device, count=4):
    """Whether so many readings arrive; a session that ended may still be reading."""
    return device.wait(lambda device: len(stored(device)) == count)


@pytest.fixture(params=(0, 0.002, 0.05))
def busy_server(request, server):
    """It takes so many seconds for each message."""
    server.faults.message_time = request.param
    return server


def test_what_was_sent_before_disconnect_is_stored(busy_server, offline, device, any_clock):
    offline.connect()
    send_4(offline)
    offline.disconnect()
    assert offline.pending_messages_count == 0
    assert stored(device) == [0, 1, 2, 3]
    assert offline.state == "stopped"


def test_what_was_sent_before_the_end_of_with_is_stored(busy_server, offline, device, any_clock):
    with offline:
        send_4(offline)
    assert stored(device) == [0, 1, 2, 3]


def test_what_was_sent_before_an_exception_ends_with_is_stored_too(busy_server, offline, device):
    with contextlib.suppress(RuntimeError), offline:
        send_4(offline)
        raise RuntimeError
    assert is_all_there(device)


def test_what_a_handler_sent_before_disconnect_is_stored(busy_server, client, device, any_clock):
    @client.rpc("sleep")
    def sleep(_):
        send_4(client)
        client.disconnect()

    device.call_rpc("sleep")
    run_until(client, lambda: client.state == "stopped")
    assert stored(device) == [0, 1, 2, 3]


def test_what_was_sent_before_disconnect_is_stored_over_tls(device, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server)
    with LocalServer(ssl_context=context) as server:
        device = server.add_device("Device A", token="TOKEN_A")
        server.faults.message_time = 0.002
        client = TBDeviceMqttClient(
            "localhost", server.port, access_token="TOKEN_A", tls=certificates.ca
        )
        client.connect()
        send_4(client)
        client.disconnect()
        assert stored(device) == [0, 1, 2, 3]


def test_what_was_sent_with_quality_of_service_0_before_disconnect_is_stored(
    busy_server, client, device
):
    for number in range(4):
        client.send_telemetry({"n%d" % number: number}, quality_of_service=0)
    client.disconnect()
    assert device.wait(lambda device: len(device.timeseries) == 4)


def test_disconnect_behind_messages_that_were_never_read_resets_nothing():
    """A socket that is closed with something to read resets the connection (RFC 1122, 4.2.2.13)."""
    ends = []

    def script(connection):
        connection.accept()
        connection.suback(connection.wait_for(SUBSCRIBE))
        for _ in range(40):
            connection.send(publish(ATTRIBUTES, b'{"text":"%s"}' % (b"x" * 500)))
        connection.wait_for(DISCONNECT)
        time.sleep(0.1)  # as busy as a server may be
        try:
            connection.send(publish(ATTRIBUTES, b"{}"))
            connection.send(publish(ATTRIBUTES, b"{}"))
            ends.append("open")
        except OSError:
            ends.append("reset")
        connection.fin()

    with ScriptedBroker(script) as broker:
        client = TBDeviceMqttClient("127.0.0.1", broker.port, "TOKEN")
        client.subscribe_to_all_attributes(Notes())
        client.connect()
        time.sleep(0.05)
        client.send_telemetry({"n": 1}, quality_of_service=0)
        client.disconnect()
        wait_until(lambda: ends)
    assert ends == ["open"]


def test_disconnect_0_is_at_once_and_what_is_left_stays_queued(server, client, device):
    server.faults.message_time = 0.05
    send_4(client)
    assert seconds_of(lambda: client.disconnect(0)) < 0.05
    assert client.pending_messages_count == 4
    client.connect()
    all_sent(client)
    assert sorted(set(stored(device))) == [0, 1, 2, 3]


def test_disconnect_does_not_wait_longer_than_its_timeout(server, client, device):
    server.faults.mute_puback = True
    send_4(client)
    assert seconds_of(lambda: client.disconnect(0.3)) < 1.5
    assert client.state == "stopped"


def test_disconnect_of_a_client_that_is_offline_is_at_once(server, client, device):
    server.stop_listening()
    run_until(client, lambda: not client.connected)
    send_4(client)
    assert seconds_of(client.disconnect) < 0.3
    assert client.pending_messages_count == 4


def wills(mosquitto, leave):
    """The last wills of a client that sends 20 messages and leaves, as a real broker tells them."""
    told = Notes()
    with plain_client(mosquitto, "observer") as observer:
        observer.subscribe("lives/#", told)
        all_sent(observer)
        client = plain_client(mosquitto, "mortal")
        client.will_set("lives/will", "killed")
        client.connect()
        client.subscribe("lives/#", Notes())
        for number in range(20):
            client.publish("lives/message", str(number))
        leave(client)
        wait_until_told(observer, told, 20)
        poll_for(observer, 0.3)
    return [payload for topic, payload in told.calls if topic == "lives/will"]


def plain_client(mosquitto, client_id):
    return TBDeviceMqttClient("127.0.0.1", mosquitto.plain, client_id=client_id)


def wait_until_told(observer, told, count):
    run_until(observer, lambda: len(told.calls) >= count)


@pytest.mark.parametrize("timeout", [2, 0])
def test_after_disconnect_no_will_is_published(mosquitto, timeout):
    def leave(client):
        all_sent(client)
        client.disconnect(timeout)

    assert wills(mosquitto, leave) == []


def test_after_disconnect_behind_unread_messages_no_will_is_published(mosquitto):
    assert wills(mosquitto, lambda client: client.disconnect()) == []


def test_after_a_connection_was_lost_the_will_is_published(mosquitto):
    def leave(client):
        all_sent(client)
        client._link._socket.close()

    assert wills(mosquitto, leave) == [b"killed"]


# --- handlers that take their time ---

KEEP_ALIVE_S = 8
SLOW_S = 2


@pytest.mark.parametrize("kind", ["rpc", "attributes"])
def test_eight_slow_handlers_cost_no_connection(kind):
    """No poll is longer than one or two of them, and pings go on in between."""
    with MemoryClock() as clock:
        server = MemoryServer(clock)
        device = server.add_device("Device A", "TOKEN_A")
        client = TBDeviceMqttClient(
            "server.test",
            access_token="TOKEN_A",
            socket_pool=server.pool,
            keep_alive=KEEP_ALIVE_S,
        )
        executed = []

        def work(arguments, *_):
            executed.append(arguments)
            clock.advance(SLOW_S * 1000)

        client.rpc("work")(work)
        client.subscribe_to_all_attributes(work)
        client.connect(timeout=0)
        poll_in_memory(server, clock, client, lambda: device.subscriptions)
        for number in range(8):
            if kind == "rpc":
                device.call_rpc("work", number, timeout=60)
            else:
                device.push_attributes({"interval": number})
        longest_ms, pause_ms = poll_in_memory(server, clock, client, lambda: len(executed) == 8)
        poll_in_memory(server, clock, client, lambda: client.pending_messages_count == 0)
    assert longest_ms <= 2 * SLOW_S * 1000
    assert pause_ms <= KEEP_ALIVE_S * 1000, "so long nothing was sent"
    assert device.connects == 1
    assert client.connected


def poll_in_memory(server, clock, client, condition):
    """Milliseconds of the longest poll, and of the longest pause in what the client sends."""
    longest_ms = pause_ms = 0
    sent, sent_at = 0, clock.now_ms
    for _ in range(2000):
        server.pool.deliver()
        if server.pool.socket_now is not None:
            server.pool.socket_now.begin_poll()
            if len(server.pool.socket_now.sent) != sent:
                sent, sent_at = len(server.pool.socket_now.sent), clock.now_ms
        if condition():
            return longest_ms, pause_ms
        started = clock.now_ms
        client.check_for_msg()
        longest_ms = max(longest_ms, clock.now_ms - started)
        pause_ms = max(pause_ms, clock.now_ms - sent_at)
        clock.advance(10)
    raise AssertionError((client.state, client.last_error, client.stats))


def listen(client, device, handler):
    client.set_server_side_rpc_request_handler(handler)
    subscribed(client, device, "v1/devices/me/rpc/request/+")


def test_a_handler_that_returns_what_send_rpc_reply_returns_answers_once(client, device):
    listen(client, device, lambda number, body: client.send_rpc_reply(number, body["params"]))
    reply = device.call_rpc("echo", {"a": 1})
    run_until(client, reply.done)
    all_sent(client)
    poll_for(client, 0.05)
    assert device.rpc_replies == [(0, b'{"a":1}')]


def test_a_method_that_sends_its_reply_and_returns_a_value_answers_once(client, device):
    @client.rpc("echo")
    def echo(params):
        return client.send_rpc_reply(0, params)

    subscribed(client, device, "v1/devices/me/rpc/request/+")
    reply = device.call_rpc("echo", 5)
    run_until(client, reply.done)
    all_sent(client)
    poll_for(client, 0.05)
    assert device.rpc_replies == [(0, b"5")]


@pytest.mark.parametrize("is_online", [True, False])
def test_on_drop_that_sends_again_does_not_spin(server, client, device, is_online):
    dropped = Notes()

    def on_drop(client, _data, _topic, _message_id, payload, _reason):
        dropped(payload)
        client.publish("v1/devices/me/telemetry", payload)

    client.on_drop = on_drop
    server.faults.mute_puback = True
    if not is_online:
        server.stop_listening()
        run_until(client, lambda: not client.connected)
    for number in range(70):
        client.send_telemetry({"n": number})
    drops = client.stats["dropped"]
    poll_for(client, 0.2)
    assert len(dropped.calls) == drops == 6
    assert client.stats["dropped"] == 12  # and what on_drop sent instead of each
    assert client.pending_messages_count == 64
    if not is_online:
        server.faults.mute_puback = False
        server.listen_again()
        all_sent(client)
        assert stored(device) == list(range(6, 70))


def test_an_rpc_waits_as_long_as_its_reply_has_no_place(server, device):
    with online_client(server, queue_size=4) as client:
        executed = Notes("done")
        client.rpc("work")(executed)
        subscribed(client, device, "v1/devices/me/rpc/request/+")
        server.faults.mute_puback = True
        for number in range(4):
            client.send_attributes({"a%d" % number: number})
        reply = device.call_rpc("work", 1)
        poll_for(client, 0.2)
        assert executed.calls == []
        assert client.stats["dropped"] == 0
        server.faults.mute_puback = False
        device.disconnect()
        run_until(client, reply.done)
        all_sent(client)
    assert executed.calls == [(1,)]
    assert reply.result() == "done"
    assert client.stats["dropped"] == 0
    assert len(device.client_attributes) == 4
    assert set(device.rpc_replies) == {(0, b'"done"')}  # again, if the server asked again


def test_an_rpc_does_not_wait_for_readings_which_give_way(server, device):
    with online_client(server, queue_size=4) as client:
        client.rpc("work")(Notes("done"))
        subscribed(client, device, "v1/devices/me/rpc/request/+")
        server.faults.mute_puback = True
        for number in range(4):
            client.send_telemetry({"n": number})
        reply = device.call_rpc("work")
        run_until(client, reply.done)
        assert client.stats["dropped"] == 1
        client.disconnect(0)
    assert reply.result() == "done"


def test_rpcs_that_come_again_behind_others_that_wait_are_executed_once(server, proxy, device):
    """The server asks again before it has the replies, and they are acknowledged meanwhile."""
    with online_client(server, port=proxy.port, queue_size=6) as client:
        executed = Notes("done")
        client.rpc("work")(executed)
        subscribed(client, device, "v1/devices/me/rpc/request/+")
        proxy.to_server.hole = True
        replies = [device.call_rpc("work", number) for number in range(10)]
        run_until(client, lambda: len(executed.calls) == 6)
        poll_for(client, 0.05)
        proxy.to_server.hole = False
        proxy.cut_now()
        run_until(client, lambda: all(reply.done() for reply in replies))
        all_sent(client)
        poll_for(client, 0.05)
    assert executed.firsts == list(range(10))


def test_what_was_dropped_and_is_asked_again_is_told_under_its_old_number(server, device):
    with online_client(server, queue_size=2) as client:
        client.on_drop = dropped = Notes()
        server.stop_listening()
        run_until(client, lambda: client.state == "connecting")
        client.request_attributes("a")  # its message is the second number
        client.send_attributes({"a": 1})
        client.send_attributes({"b": 2})
        run_until(client, lambda: len(dropped.calls) >= 2)
        server.listen_again()
        all_sent(client)
    topics = [(call[2].split("/")[-2], call[3]) for call in dropped.calls]
    assert topics[0] == ("request", 2)
