# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The doors that `attach` opens, proven with three small companions and with some that fail."""

import json
import tracemalloc

import adafruit_ticks
import pytest

import tb_device_mqtt
from clients import (
    ATTRIBUTES,
    RPC_RESPONSE,
    TELEMETRY,
    Clock,
    Notes,
    new_client,
    offline_client,
    online_client,
    subscribed,
    values,
)
from companions.heartbeat import Heartbeat
from companions.keeper import Keeper
from companions.limiter import Limiter
from helpers import run_for, run_until

LONGEST_CALL_MS = 50
CLOSE_MS = 1500  # how far a time may be off: a busy computer
POLLS = 5  # time enough for what must not happen


@pytest.fixture
def clock(monkeypatch):
    """A clock that jumps, for the library and the companions."""
    made = Clock(monkeypatch)
    for module in ("heartbeat", "limiter"):
        monkeypatch.setattr("companions.%s.ticks_ms" % module, made.ticks_ms)
    return made


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "queue.json")


def in_file(path):
    """``[topic, ...]`` of what a keeper's file says."""
    with open(path, encoding="utf-8") as file:
        return [entry[0] for entry in json.load(file)]


def poll(client, times=POLLS):
    for _ in range(times):
        client.check_for_msg()


def sent_numbers(device):
    return [row["n"] for row in values(device) if "n" in row]


class Recorder:
    """A companion with every method, which notes what it is told and says yes to everything."""

    def __init__(self):
        self.polls = 0
        self.asked = []
        self.told = []
        self.entries = {}

    def poll(self):
        self.polls += 1

    def may_send(self, topic, data_points):
        self.asked.append(topic)
        return True

    def sent(self, topic, data_points):
        self.told.append(topic)

    def keep(self, message_id, topic, payload, quality_of_service):
        self.entries[message_id] = (topic, payload, quality_of_service)

    def forget(self, message_id):
        self.entries.pop(message_id, None)

    def kept(self):
        return []


class Polled:
    """A companion that calls *function* in each poll."""

    def __init__(self, function):
        self.poll = function


class Gate:
    def __init__(self, is_open):
        self.is_open = is_open

    def may_send(self, _topic, _data_points):
        return self.is_open

    def sent(self, _topic, _data_points):
        """It does not count."""


class Failing(Recorder):
    """One whose method *name* raises."""

    def __init__(self, name):
        super().__init__()
        self.raised = 0
        setattr(self, name, self._fail)

    def _fail(self, *_arguments):
        self.raised += 1
        raise ValueError("companion")


class Shelf:
    """A keeper that has *kept* and keeps nothing."""

    def __init__(self, kept):
        self._kept = kept

    def kept(self):
        return self._kept

    def keep(self, *_entry):
        """Nothing."""

    def forget(self, _message_id):
        """Nothing."""


# --- poll: the heartbeat ---


def test_a_heartbeat_is_sent_once_in_each_interval(client, device, clock):
    client.attach(Heartbeat(client, 10000))
    counts = []
    for _ in range(3):
        poll(client)
        clock.skip(9)
        poll(client)
        assert client.flush(5)
        counts.append(len(values(device)))
        clock.skip(1.001)
    assert counts == [1, 2, 3]
    assert values(device) == [{"beats": 1}, {"beats": 2}, {"beats": 3}]


def test_a_heartbeat_makes_up_for_nothing_that_was_missed_offline(offline, device, clock):
    offline.attach(Heartbeat(offline, 1000))
    for _ in range(5):
        clock.skip(2)
        poll(offline)
    assert offline.pending_messages_count == 0
    offline.connect()
    clock.skip(1.001)
    poll(offline)
    assert offline.flush(5)
    assert values(device) == [{"beats": 1}]


def test_what_a_companion_sends_in_its_poll_leaves_in_the_same_check_for_msg(client):
    client.attach(
        Polled(lambda: client.send_telemetry({"n": 1}) if not client.stats["sent"] else 0)
    )
    client.check_for_msg()
    assert client.stats["sent"] == 1


def test_companions_are_polled_in_the_order_of_attach_behind_the_handlers(client, device):
    order = []
    client.attach(Polled(lambda: order.append("first")))
    client.attach(Polled(lambda: order.append("second")))
    client.subscribe_to_all_attributes(lambda *_: order.append("handler"))
    subscribed(client, device, ATTRIBUTES)
    device.push_attributes({"a": 1})
    run_until(client, lambda: "handler" in order)
    at = order.index("handler")
    assert order[at - 2 : at + 3] == ["first", "second", "handler", "first", "second"]


def test_a_companion_that_waits_is_not_polled_inside_itself(client, device):
    depths = []

    def wait():
        depths.append("in")
        client.send_telemetry({"n": len(depths)})
        client.flush(5)
        client.wait_for_msg(0.01)
        client.check_for_msg()
        depths.append("out")

    client.attach(Polled(wait))
    client.check_for_msg()
    client.check_for_msg()
    assert depths == ["in", "out", "in", "out"]
    assert client.stats["handler_errors"] == 0
    assert sent_numbers(device) == [1, 3]


def test_no_companion_is_polled_while_a_handler_runs(client, device):
    companion = Recorder()
    client.attach(companion)
    seen = []

    def handler(*_):
        before = companion.polls
        poll(client)
        seen.append(companion.polls - before)

    client.subscribe_to_all_attributes(handler)
    subscribed(client, device, ATTRIBUTES)
    device.push_attributes({"a": 1})
    run_until(client, lambda: seen)
    assert seen == [0]


def test_companions_are_polled_offline_too(offline):
    companion = Recorder()
    offline.attach(companion)
    poll(offline)
    assert companion.polls == POLLS


# --- several at a time ---


def test_several_companions_get_on_with_each_other_and_with_the_program(
    client, device, clock, path
):
    limiter, keeper, recorder = Limiter(1000, 1000, 1000), Keeper(path), Recorder()
    for companion in (Heartbeat(client, 1000), limiter, keeper, recorder):
        client.attach(companion)
    client.on_publish = published = Notes()
    client.on_state = states = Notes()
    client.subscribe_to_all_attributes(changed := Notes())
    client.rpc("get")(lambda params: {"got": params})
    subscribed(client, device, ATTRIBUTES)
    subscribed(client, device, "v1/devices/me/rpc/request/+")
    client.request_attributes(callback=(answers := Notes()))
    clock.skip(1.001)
    device.push_attributes({"a": 1})
    call = device.call_rpc("get", 7)
    ids = [client.send_telemetry({"n": number}) for number in range(3)]
    run_until(client, lambda: changed.calls and answers.calls and call.done())
    device.disconnect()
    run_until(client, lambda: len(states.calls) >= 3 and client.connected)
    assert client.flush(5)
    poll(client)
    assert call.result() == {"got": 7}
    assert sorted(set(sent_numbers(device))) == [0, 1, 2]
    assert {"beats": 2} in values(device)
    assert set(ids) <= {notes[3] for notes in published.calls}
    assert in_file(path) == list(recorder.entries) == []
    assert client.stats["sent"] + client.stats["resent"] == len(recorder.told)
    assert client.stats["handler_errors"] == client.stats["dropped"] == 0


def test_a_companion_without_any_of_the_methods_does_no_harm(client):
    client.attach(object())
    client.send_telemetry({"n": 1})
    assert client.flush(5)


# --- what a companion raises ---


@pytest.mark.parametrize("name", ["poll", "may_send", "sent", "keep", "forget"])
def test_what_a_companion_raises_is_counted_and_costs_no_message(offline, device, name):
    failing, good = Failing(name), Recorder()
    offline.attach(failing)
    offline.attach(good)
    offline.on_publish = published = Notes()
    ids = [offline.send_telemetry({"n": number}) for number in range(5)]
    ids.append(offline.send_attributes({"a": 1}, 0))
    offline.connect()
    assert offline.flush(5)
    poll(offline)
    assert sent_numbers(device) == [0, 1, 2, 3, 4]
    assert device.client_attributes == {"a": 1}
    assert sorted(notes[3] for notes in published.calls) == ids
    assert offline.stats["handler_errors"] == failing.raised > 0
    assert str(offline.last_error) == "companion"
    assert good.polls > 0
    assert good.told
    assert good.entries == {}


def test_what_kept_raises_is_raised_by_attach_and_nothing_was_attached(offline):
    companion = Failing("kept")
    with pytest.raises(ValueError, match="companion"):
        offline.attach(companion)
    offline.send_telemetry({"n": 1})
    poll(offline)
    assert (companion.polls, companion.asked, companion.entries) == (0, [], {})


def test_an_entry_that_cannot_be_sent_is_counted_and_the_others_arrive(offline, device):
    good = [(TELEMETRY, b'{"n":1}', 1), [TELEMETRY, '{"n":2}', 0]]
    bad = [("topic/#", b"", 1), (TELEMETRY, b"x" * 20000, 1), (TELEMETRY, b"", 2), (TELEMETRY,)]
    offline.attach(Shelf([good[0], *bad, good[1]]))
    assert offline.stats["handler_errors"] == len(bad)
    offline.connect()
    assert offline.flush(5)
    assert sent_numbers(device) == [1, 2]


# --- keep, forget, kept: the keeper ---


def test_what_a_keeper_kept_arrives_once_after_a_reboot(server, device, path):
    with offline_client(server) as before:
        before.attach(Keeper(path))
        before.send_telemetry({"n": 1})
        before.send_attributes({"a": 2})
        before.publish("any/topic", b"\xff\x00", 0)
    assert in_file(path) == [TELEMETRY, ATTRIBUTES, "any/topic"]
    with offline_client(server) as after:
        after.attach(Keeper(path))
        assert after.pending_messages_count == 3
        after.send_telemetry({"n": 3})
        after.connect()
        assert after.flush(5)
    assert in_file(path) == []
    assert [message[0] for message in device.messages] == [
        TELEMETRY,
        ATTRIBUTES,
        "any/topic",
        TELEMETRY,
    ]
    assert device.messages[2][1:3] == (b"\xff\x00", 0)
    assert sent_numbers(device) == [1, 3]
    with online_client(server) as again:
        again.attach(Keeper(path))
        assert again.pending_messages_count == 0


def test_readings_keep_the_time_of_their_capture_over_a_reboot(server, device, clock, path):
    clock.epoch_s = 1800000000
    with offline_client(server) as before:
        before.attach(Keeper(path))
        before.send_telemetry([{"n": 1}, {"n": 2}])
    clock.skip(3600)
    with online_client(server) as after:
        after.attach(Keeper(path))
        assert after.flush(5)
    assert [row for _, row in device.telemetry] == [{"n": 1}, {"n": 2}]
    first, second = (ts for ts, _ in device.telemetry)
    assert 0 <= first - 1800000000000 < CLOSE_MS
    assert second > first


@pytest.mark.parametrize("options", [{"stamp": "never"}, {}], ids=["never", "unset"])
def test_readings_without_a_time_are_kept_as_they_are(server, clock, options):
    clock.epoch_s = 1800000000 if options else 946684800
    with offline_client(server, **options) as client:
        client.attach(recorder := Recorder())
        client.send_telemetry({"n": 1})
    assert recorder.entries == {1: (TELEMETRY, b'{"n":1}', 1)}


def test_what_a_keeper_kept_outlives_several_reboots_without_a_server(server, device, path):
    for number in range(4):
        client = new_client(server)
        client.attach(Keeper(path))
        client.send_telemetry({"n": number})
    client.connect()
    assert client.flush(5)
    client.disconnect()
    assert sent_numbers(device) == [0, 1, 2, 3]
    assert in_file(path) == []


def test_a_reboot_while_attach_gives_back_loses_nothing(server, path, monkeypatch):
    with offline_client(server) as before:
        before.attach(Keeper(path))
        for number in range(3):
            before.publish("t/%d" % number, b"")
    client = new_client(server)
    monkeypatch.setattr(client, "publish", Notes(RuntimeError("the power fails here")))
    client.attach(Keeper(path))
    assert in_file(path) == ["t/0", "t/1", "t/2"]


def test_what_arrived_before_the_reboot_is_not_sent_again(server, client, device, path):
    client.attach(Keeper(path))
    client.send_telemetry({"n": 1})
    assert client.flush(5)
    server.faults.mute_puback = True
    client.send_telemetry({"n": 2})
    run_until(client, lambda: len(device.messages) == 2)
    assert in_file(path) == [TELEMETRY]  # the server has it; nobody told


def test_a_keeper_is_told_the_end_of_what_is_dropped(server, path):
    with offline_client(server, queue_size=2) as client:
        client.attach(Keeper(path))
        for number in range(5):
            client.publish("t/%d" % number, b"")
        assert in_file(path) == ["t/3", "t/4"]


def test_what_finds_no_place_in_the_queue_is_not_kept(server):
    with offline_client(server, queue_size=1) as client:
        client.attach(recorder := Recorder())
        client.publish("any/topic", b"")
        client.send_telemetry({"n": 1})  # nothing gives way to it
        assert [entry[0] for entry in recorder.entries.values()] == ["any/topic"]


def test_a_keeper_is_told_when_nobody_waits_for_the_answer_any_more(offline, clock, path):
    offline.attach(Keeper(path))
    offline.send_rpc_call("get", callback=(answer := Notes()), timeout=5)
    assert len(in_file(path)) == 1
    clock.skip(6)
    run_until(offline, lambda: answer.calls)
    assert (in_file(path), offline.pending_messages_count) == ([], 0)


def test_a_keeper_learns_payload_and_quality_of_service_as_they_leave(offline):
    recorder = Recorder()
    offline.attach(recorder)
    offline.send_telemetry(
        [{"ts": 1700000000001, "values": {"n": 1}}, {"ts": 1700000000002, "values": {"n": 2}}]
    )
    offline.publish("any/topic", "text", 0)
    assert list(recorder.entries.values()) == [
        (
            TELEMETRY,
            b'[{"ts":1700000000001,"values":{"n":1}},{"ts":1700000000002,"values":{"n":2}}]',
            1,
        ),
        ("any/topic", b"text", 0),
    ]


# --- may_send, sent: the limiter ---


def test_a_limiter_lets_so_many_messages_leave_in_each_window(client, device, clock):
    client.attach(Limiter(3, 1000, 60000))
    for number in range(10):
        client.send_attributes({"n": number})
    counts = []
    for _ in range(4):
        run_for(client, 0.05)
        counts.append(len(device.messages))
        clock.skip(60)
    assert counts == [3, 6, 9, 10]
    assert client.pending_messages_count == 0


def test_a_limiter_lets_so_many_data_points_leave_in_each_window(client, device, clock):
    client.attach(Limiter(1000, 5, 60000))
    for number in range(4):
        client.send_attributes({"a": number, "b": number})
    client.send_attributes({"k%d" % number: 0 for number in range(20)})  # above the limit
    counts = []
    for _ in range(3):
        run_for(client, 0.05)
        counts.append(len(device.messages))
        clock.skip(60)
    assert counts == [2, 4, 5]


def test_a_limiter_has_a_new_window_after_days_of_silence(client, device, clock):
    client.attach(Limiter(1, 1000, 60000))
    client.send_attributes({"n": 1})
    assert client.flush(5)
    for _ in range(8):
        clock.skip(86400 / 2)
        run_until(client, lambda: client.connected)
    client.send_attributes({"n": 2})
    assert client.flush(5)


def test_a_limiter_that_holds_delays_no_call_of_the_program(server, device, clock):
    with online_client(server, queue_size=20) as client:
        client.attach(Limiter(1, 1000, 60000))
        longest_s = 0
        for number in range(60):  # three times what the queue holds
            started = adafruit_ticks.ticks_ms()
            client.send_telemetry({"n": number})
            client.check_for_msg()
            took_ms = adafruit_ticks.ticks_diff(adafruit_ticks.ticks_ms(), started)
            longest_s = max(longest_s, took_ms)
        assert longest_s < LONGEST_CALL_MS
        assert client.stats["dropped"] > 30
        client.disconnect(0)


def test_requests_and_replies_behind_a_closed_gate_leave_when_it_opens(client, device):
    client.rpc("get")(lambda params: {"got": params})
    subscribed(client, device, "v1/devices/me/rpc/request/+")
    gate = Gate(False)
    client.attach(gate)
    client.send_telemetry({"n": 1})
    client.request_attributes(callback=(answers := Notes()))
    client.send_rpc_call("ask", callback=(result := Notes()))
    call = device.call_rpc("get", 7)
    run_until(client, lambda: client.pending_messages_count == 4)
    run_for(client, 0.05)
    assert device.messages == []
    device.on_client_rpc = lambda method, params: method
    gate.is_open = True
    run_until(client, lambda: answers.calls and result.calls and call.done())
    assert call.result() == {"got": 7}
    assert answers.calls == [({"client": {}, "shared": {}}, None)] or answers.calls[0][1] is None
    assert result.calls[0][1:] == ("ask", None)
    topics = [message[0] for message in device.messages]
    assert (topics[0], topics[-1].startswith(RPC_RESPONSE)) == (TELEMETRY, True)


def test_a_closed_gate_lets_the_connection_live(server, device, clock):
    with online_client(server, keep_alive=4) as client:
        client.attach(Gate(False))
        client.send_telemetry({"n": 1})
        for _ in range(30):
            clock.skip(1)
            run_for(client, 0.005)
        assert client.connected
        assert client.stats["connects"] == 1
        assert client.pending_messages_count == 1
        client.disconnect(0)


# --- attach at any time ---


def test_companions_may_be_attached_in_the_middle_of_an_outage(server, client, device, path):
    server.stop_listening()
    device.disconnect()
    run_until(client, lambda: not client.connected)
    client.send_telemetry({"n": 0})
    gate, recorder = Gate(False), Recorder()
    for companion in (gate, recorder, Keeper(path)):
        client.attach(companion)
    client.send_telemetry({"n": 1})
    assert in_file(path) == [TELEMETRY]  # what was in the queue before is not kept
    server.listen_again()
    run_until(client, lambda: client.connected)
    run_for(client, 0.05)
    assert device.messages == []
    gate.is_open = True
    assert client.flush(5)
    assert sent_numbers(device) == [0, 1]
    assert in_file(path) == []
    assert recorder.polls > 0


def test_a_limiter_attached_later_holds_what_waits(offline, device):
    offline.send_attributes({"n": 1})
    offline.attach(Gate(False))
    offline.connect()
    run_for(offline, 0.05)
    assert device.messages == []
    offline.disconnect(0)


def test_what_a_companion_kept_passes_its_own_gate(server, device):
    class Both(Shelf, Gate):
        def __init__(self):
            Shelf.__init__(self, [(TELEMETRY, b'{"n":1}', 1)])
            Gate.__init__(self, False)

    with online_client(server) as client:
        client.attach(companion := Both())
        run_for(client, 0.05)
        assert device.messages == []
        companion.is_open = True
        assert client.flush(5)
    assert sent_numbers(device) == [1]


# --- what it costs ---


def test_an_idle_poll_with_companions_allocates_nothing_of_ours(client, path):
    for companion in (Heartbeat(client, 600000), Limiter(10, 10, 1000), Keeper(path), Recorder()):
        client.attach(companion)
    client.send_telemetry({"n": 1})
    assert client.flush(5)
    poll(client, 100)
    ours = tracemalloc.Filter(True, tb_device_mqtt.__file__)
    tracemalloc.start()
    try:
        poll(client, 100)
        before = tracemalloc.take_snapshot().filter_traces([ours])
        poll(client, 1000)
        after = tracemalloc.take_snapshot().filter_traces([ours])
    finally:
        tracemalloc.stop()
    grown = sum(change.count_diff for change in after.compare_to(before, "filename"))
    assert grown <= 0


def test_a_poll_without_companions_delivers_nothing(client, monkeypatch):
    poll(client)
    monkeypatch.setattr(client, "_deliver", Notes(AssertionError("an idle poll delivered")))
    poll(client)
