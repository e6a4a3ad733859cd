# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Random lives over a bad line: all public methods, cuts at any byte, silence, a clock that jumps.

In the end everything heals. Then every message was published or dropped, once and told; what was
published is stored; no RPC was executed twice; every question had one answer; memory is flat.
"""

import gc
import json
import random
import time
import tracemalloc

import pytest

import tb_device_mqtt
from clients import ATTRIBUTES, Clock, new_client
from faults.proxy import FIN, RST, FaultProxy
from tb_device_mqtt import TBError

SEEDS = range(16)
STEPS = 140
FLAT_BYTES = 18000  # what a client that has nothing to do keeps
SKIPPED_S = 200  # in all; after 300 an RPC that came again would be a new one
UNSET_S = 946684800
BASE_MS = 1700000000000


class Notebook:
    """What the client was given, and what became of it; a companion that keeps nothing."""

    def __init__(self):
        self.handed = {}  # message id: (topic, payload, quality of service)
        self.published = []  # message ids
        self.dropped = []
        self.executed = []  # numbers of RPCs
        self.answers = {}  # name of a question: how many answers it got
        self.errors = []

    def keep(self, message_id, topic, payload, quality_of_service):
        self.handed[message_id + 0] = (str(topic), json.loads(payload), quality_of_service)

    def forget(self, message_id):
        """An end is told by `on_publish` and `on_drop` as well."""

    def kept(self):
        return []

    def on_publish(self, _client, _data, _topic, message_id):
        self.published.append(message_id + 0)

    def on_drop(self, _client, _data, _topic, message_id, _payload, _reason):
        self.dropped.append(message_id + 0)

    def new_question(self):
        """A callback that counts its calls."""
        name = len(self.answers)
        self.answers[name] = 0

        def answer(*_):
            self.answers[name] += 1

        return answer


class Life:
    """A client, its server and the line between them; `step` does something, whatever it is."""

    def __init__(self, seed, server, device, proxy, clock):
        self.random = random.Random(seed)
        self.server, self.device, self.proxy, self.clock = server, device, proxy, clock
        self.notes = Notebook()
        self.number = 0
        self.skipped_s = 0
        self.stamp = self.random.choice(("late", "always", "never"))
        if self.random.random() < 0.3:
            clock.epoch_s = UNSET_S
        self.client = new_client(
            proxy,
            stamp=self.stamp,
            queue_size=self.random.choice((8, 20, 64)),
            queue_bytes=self.random.choice((2500, 8192)),
            keep_alive=self.random.choice((2, 10, 60)),
            compact=self.random.random() < 0.3,
        )
        self.client._link.backoff_ms = 5
        self.client.attach(self.notes)
        self.client.on_publish = self.notes.on_publish
        self.client.on_drop = self.notes.on_drop
        self.client.rpc("count")(self.count)
        self.client.idle = lambda: self.skip(0.02)  # what it waits for is sooner there
        self.client.connect(timeout=0)
        self.steps = [getattr(self, name) for name in dir(self) if name.startswith("do_")]

    def count(self, number):
        """An RPC whose handler may do what any other part of a program may."""
        self.notes.executed.append(number)
        if number % 3 == 0:
            self.do_send_telemetry()
        if number % 7 == 0:
            self.client.flush(0.01)
        return number

    def next_reading(self):
        """What mixes times of board and server gets keys of its own: there they could meet."""
        self.number += 1
        key = "r%d" % self.number if self.stamp == "late" else "n"
        return {key: self.number}

    def step(self):
        self.random.choice(self.steps)()
        for _ in range(self.random.choice((0, 1, 1, 5))):
            self.client.check_for_msg()
        time.sleep(self.random.choice((0, 0.001, 0.003)))

    # --- the program ---

    def do_send_telemetry(self):
        self.client.send_telemetry(self.next_reading())

    def do_burst(self):
        for _ in range(self.random.randint(2, 15)):
            self.do_send_telemetry()

    def do_send_list(self):
        self.client.send_telemetry([self.next_reading() for _ in range(self.random.randint(1, 6))])

    def do_send_with_time(self):
        self.number += 1
        reading = {"ts": BASE_MS + self.number, "values": {"timed": self.number}}
        self.client.send_telemetry(reading)

    def do_send_once(self):
        self.client.send_telemetry({"unimportant": 1}, quality_of_service=0)

    def do_send_attributes(self):
        self.number += 1
        text = "x" * self.random.choice((1, 100, 900))
        self.client.send_attributes({"a%d" % self.number: text})

    def do_publish(self):
        self.client.publish("any/topic", json.dumps("x" * self.random.choice((1, 100, 1500))))

    def do_reply_to_nobody(self):
        self.client.send_rpc_reply(10**6, "unasked")

    def do_claim(self):
        self.client.claim_device("secret", 60000)

    def do_request_attributes(self):
        self.client.request_attributes("a", callback=self.notes.new_question(), timeout=30)

    def do_call(self):
        self.client.send_rpc_call("getSessionLimits", {}, self.notes.new_question(), 30)

    def do_listen_to_attributes(self):
        self.client.subscribe_to_attribute("shared", lambda *_: None)
        if self.random.random() < 0.5:
            self.client.unsubscribe_from_attribute("*")

    def do_listen_to_a_topic(self):
        self.client.subscribe(ATTRIBUTES, lambda *_: None)
        if self.random.random() < 0.5:
            self.client.unsubscribe(ATTRIBUTES)

    def do_look_at_shared(self):
        self.client.shared.setdefault("shared", 0)

    def do_wait(self):
        self.client.wait_for_msg(0.01)
        self.client.flush(0.02)

    def do_poll(self):
        for _ in range(20):
            self.client.check_for_msg()
            time.sleep(0.001)

    do_poll_again = do_poll_a_third_time = do_poll

    def do_disconnect(self):
        self.client.disconnect(self.random.choice((0, 0.05)))
        self.client.send_telemetry(self.next_reading())
        self.client.connect(timeout=0)

    def do_connect(self):
        try:
            self.client.connect(timeout=0.05)
        except (OSError, TBError):
            pass  # as its docstring says

    # --- the user of the server ---

    def do_push_attributes(self):
        for _ in range(self.random.choice((1, 1, 20))):
            self.number += 1
            size = self.random.choice((1, 100, 3000))
            self.device.push_attributes({"shared": "%d " % self.number + "x" * size})

    def do_rpc(self):
        for _ in range(self.random.choice((1, 2, 10))):
            self.number += 1
            self.device.call_rpc("count", self.number, timeout=1000)

    # --- the line, the server and the time ---

    def do_cut(self):
        self.proxy.cut_now(self.random.choice((FIN, RST)))

    def do_cut_later(self):
        way = self.random.choice((self.proxy.to_server, self.proxy.to_client))
        way.cut(self.random.randint(0, 600), self.random.choice((FIN, RST)))

    def do_slow_down(self):
        self.proxy.round_trip(self.random.choice((0, 0, 0.005, 0.03)))

    def do_cut_to_pieces(self):
        self.proxy.to_server.chunk = self.random.choice((0, 7))
        self.proxy.to_client.chunk = self.random.choice((0, 3))

    def do_fall_silent(self):
        self.proxy.black_hole()
        self.do_burst()
        self.do_skip()
        self.end_silence()

    def end_silence(self):
        """The next connection hears of it; nobody goes on in the middle of a packet."""
        self.proxy.black_hole(False)
        self.proxy.cut_now(RST)

    def do_hold(self):
        self.proxy.to_server.held = not self.proxy.to_server.held

    def do_mute_acknowledgements(self):
        self.server.faults.mute_puback = not self.server.faults.mute_puback

    def do_restart_the_server(self):
        self.server.stop_listening(rst=self.random.random() < 0.5)
        self.do_burst()
        self.do_poll()
        self.server.listen_again()

    def do_skip(self):
        self.skip(self.random.choice((0.05, 1, 3, 12)))

    def skip(self, seconds):
        if self.skipped_s + seconds < SKIPPED_S:
            self.skipped_s += seconds
            self.clock.skip(seconds)

    # --- the end ---

    def heal(self):
        """Everything is well again, and nothing is left to do."""
        self.proxy.heal()
        self.server.faults.mute_puback = False
        self.proxy.cut_now()
        self.poll_until(lambda: not self.client.connected)
        self.client.connect(timeout=0)
        self.poll_until(self.is_quiet)
        self.client.check_for_msg()

    def poll_until(self, condition):
        end = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < end, (self.client.state, self.client.last_error)
            self.client.check_for_msg()
            self.clock.skip(0.02)  # pauses before attempts are over sooner
            time.sleep(0.0005)

    def is_quiet(self):
        is_answered = all(self.notes.answers.values())
        return self.client.connected and not self.client.pending_messages_count and is_answered

    def check(self):
        notes = self.notes
        published, dropped = set(notes.published), set(notes.dropped)
        assert len(notes.published) == len(published), "told twice"
        assert len(notes.dropped) == len(dropped), "told twice"
        assert not published & dropped, [notes.handed.get(m) for m in published & dropped]
        for message_id, (topic, payload, _) in notes.handed.items():
            if "/req" not in topic and "/res" not in topic:  # whose ends are answers
                assert message_id in published | dropped, (message_id, topic, payload)
        self.check_what_is_stored(published)
        assert len(notes.executed) == len(set(notes.executed))
        assert set(notes.answers.values()) <= {1}
        assert self.client.stats["handler_errors"] == 0
        assert self.client.stats["dropped"] == len(dropped)

    def check_what_is_stored(self, published):
        rows = self.device.timeseries
        stored = {(key, value) for key in rows for _, value in rows[key]}
        for message_id in published:
            topic, payload, quality_of_service = self.notes.handed.get(message_id, ("", {}, 0))
            if not quality_of_service:
                continue
            if topic.endswith(("telemetry", "v2/t")):
                assert readings_of(payload) <= stored, (message_id, readings_of(payload) - stored)
            elif topic.endswith(("attributes", "v2/a")):
                assert set(payload) <= set(self.device.client_attributes)

    def kept_bytes(self):
        """What the library holds, without what is noted here."""
        self.notes.__init__()
        self.client.unsubscribe_from_attribute("*")
        gc.collect()
        snapshot = tracemalloc.take_snapshot()
        only = tracemalloc.Filter(True, tb_device_mqtt.__file__)
        return sum(line.size for line in snapshot.filter_traces([only]).statistics("filename"))


def readings_of(payload):
    """``{(key, value), ...}`` of a telemetry message in any of its shapes."""
    rows = payload if isinstance(payload, list) else [payload]
    rows = [row.get("values", row) for row in rows]
    return {(key, value) for row in rows for key, value in row.items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_life_loses_nothing_untold_and_does_nothing_twice(server, device, monkeypatch, seed):
    tracemalloc.start()
    try:
        with FaultProxy(server.port) as proxy:
            life = Life(seed, server, device, proxy, Clock(monkeypatch))
            for _ in range(STEPS):
                life.step()
            life.heal()
            life.check()
            life.heal()  # after one more loss nothing is remembered that could come again
            assert life.kept_bytes() < FLAT_BYTES
            life.client.disconnect(0)
    except Exception as error:
        raise AssertionError("seed %d: %r" % (seed, error)) from error
    finally:
        tracemalloc.stop()
