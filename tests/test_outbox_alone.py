# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The outbox without a client and without a socket: a test for each sentence of its theory.

`Link` notes what leaves, `Owner` what ends, `Clock` is set by hand.
"""

import json

import pytest

import tb_device_mqtt
from tb_device_mqtt import TBTimeoutError, _Message, _Outbox

WINDOW = 32  # QoS 1 packets in flight
LOSSES = 8  # after which the front is dropped
BATCH_BYTES = 1024
APART_MS = 2  # readings that leave closer to each other tell their own time
OVERHEAD_BYTES = 64
MAX_ID = 0x3FFFFFFF
PACKET_IDS = 32767
DUP = 8
QOS_1 = 2
EPOCH_S = 1700000000  # from here on a clock is taken for one that was set
TELEMETRY = "v1/devices/me/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"
LOST = OSError("lost")


class Packet:
    """What left: as the link was given it."""

    def __init__(self, topic, payload, flags, packet_id):
        self.topic = topic
        self.payload = payload
        self.flags = flags
        self.id = packet_id


class Link:
    """As much of a link as the outbox uses; *room*: packets that it takes."""

    def __init__(self):
        self.packets = []
        self.room = 10**6
        self.has_no_memory = False
        self.is_accepted = True

    def can_send(self):
        return self.room > 0

    def is_sending(self):
        return self.room <= 0

    def is_online(self):
        return self.is_accepted

    def publish(self, topic, payload, flags, packet_id):
        if self.has_no_memory:
            raise MemoryError
        self.room -= 1
        self.packets.append(Packet(topic, payload, flags, packet_id))

    @property
    def payloads(self):
        return [packet.payload for packet in self.packets]


class Owner:
    """As much of a client as the outbox uses."""

    max_message_bytes = 16384

    def __init__(self):
        self.stats = {"sent": 0, "resent": 0, "acknowledged": 0, "dropped": 0}
        self.last_error = None
        self.errors = []
        self.ended = []  # (message, reason)

    def _message_ended(self, message, reason):
        self.ended.append((message, reason))

    def _call(self, handler, args):
        try:
            return handler(*args)
        except Exception as error:
            self.errors.append(error)
            return error

    def why_offline(self):
        return ": why"

    @property
    def delivered(self):
        return [message for message, reason in self.ended if reason is None]

    @property
    def dropped(self):
        return [message for message, reason in self.ended if reason is not None]


class Clock:
    """Milliseconds since some start, and the time of day, which is set or not."""

    def __init__(self):
        self.now_ms = 5000
        self.day_s = 0
        self.has_whole_seconds = False  # as time.time() of boards

    def advance(self, ms):
        self.now_ms += ms
        if self.day_s >= EPOCH_S:
            self.day_s += ms / 1000

    def time(self):
        return int(self.day_s) if self.has_whole_seconds else self.day_s

    def now(self):
        return self.now_ms


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(tb_device_mqtt, "_now_ms", made.now)
    monkeypatch.setattr(tb_device_mqtt, "ticks_ms", made.now)
    monkeypatch.setattr(tb_device_mqtt, "time", made)
    return made


class Setup:
    """An outbox between its link and its owner."""

    def __init__(self, size=64, size_bytes=1 << 20, stamp="late"):
        self.link = Link()
        self.owner = Owner()
        self.gates = []
        self.box = _Outbox(self.link, self.owner, size, size_bytes, stamp, self.gates)

    def put(self, *messages):
        for message in messages:
            self.box.put(message)
        return list(messages)

    def send(self, *messages):
        self.put(*messages)
        self.box.flush()
        return list(messages)

    def acknowledge(self, message):
        self.box.acknowledge(message.packet_id)

    def lose(self, times=1, reason=LOST, was_cut=False):
        """Lose the connection, and send on the next one; so often."""
        for _ in range(times):
            self.box.rewind(reason, was_cut)
            self.box.flush()


@pytest.fixture
def setup(clock):
    return Setup()


def plain(number, flags=QOS_1):
    """A message that is no telemetry."""
    return _Message("t/%d" % number, [b'{"n":%d}' % number], flags)


def plains(count, flags=QOS_1):
    return [plain(number, flags) for number in range(count)]


def reading(number, flags=QOS_1, ts=None, padding=0):
    text = b'{"n":%d%s}' % (number, b"" if not padding else b',"p":"%s"' % (b"x" * padding))
    if ts is not None:
        text = b'{"ts":%d,"values":%s}' % (ts, text)
    return _Message(TELEMETRY, [text], flags, True, ts is not None)


def readings(count, flags=QOS_1):
    return [reading(number, flags) for number in range(count)]


def stamped_rows(packet):
    """The (ts, n) of each reading of a packet."""
    rows = json.loads(packet.payload)
    return [(row["ts"], row["values"]["n"]) for row in (rows if isinstance(rows, list) else [rows])]


# --- _Message ---


def test_a_message_of_one_part_leaves_as_it_is():
    assert _Message("t", [b"1"]).payload() == b"1"


def test_a_message_of_several_parts_leaves_as_a_json_array():
    assert _Message("t", [b"1", b"2", b"3"]).payload() == b"[1,2,3]"


@pytest.mark.parametrize("parts", [[b""], [b"12"], [b"1", b"22"], [b"1", b"2", b"333"]])
def test_the_size_of_a_message_is_at_least_that_of_its_payload(parts):
    message = _Message("t", parts)
    size = len(message.payload())
    assert size <= message.size() <= size + len(parts)


def test_a_message_takes_readings_as_long_as_there_is_room_for_their_times_too():
    message = _Message(TELEMETRY, [], QOS_1, True)
    while message.extend(None, b'{"a":1}', 500):
        assert len(message.parts) < 100
    assert message.size() + 40 * len(message.parts) <= 500
    assert len(message.parts) > 5


def test_a_first_reading_is_taken_however_long_it_is():
    message = _Message(TELEMETRY, [], QOS_1, True)
    assert message.extend(None, b"x" * 600, 500)
    assert not message.extend(None, b"x", 500)


def test_a_message_takes_no_reading_of_the_other_kind():
    untimed, timed = (_Message(TELEMETRY, [], QOS_1, True, is_timed) for is_timed in (False, True))
    assert untimed.extend(None, b"{}", 500)
    assert not untimed.extend(1, b"{}", 500)
    assert timed.extend(1, b"{}", 500)
    assert not timed.extend(None, b"{}", 500)
    assert timed.parts == [b'{"ts":1,"values":{}}']


# --- order, window, in flight ---


def test_what_enters_leaves_in_the_same_order(setup):
    setup.send(*plains(20))
    assert [packet.topic for packet in setup.link.packets] == ["t/%d" % n for n in range(20)]


def test_nothing_leaves_before_flush_is_called(setup):
    setup.put(plain(1))
    assert setup.link.packets == []
    assert setup.box.is_waiting()


def test_a_message_of_qos_1_is_kept_until_it_is_acknowledged(setup):
    (message,) = setup.send(plain(1))
    assert (len(setup.box), setup.owner.ended) == (1, [])
    assert not setup.box.is_waiting()
    setup.acknowledge(message)
    assert (len(setup.box), setup.owner.delivered) == (0, [message])
    assert setup.owner.stats["acknowledged"] == 1
    assert not message.is_queued


def test_a_message_of_qos_0_ends_as_it_leaves(setup):
    (message,) = setup.send(plain(1, 0))
    assert (len(setup.box), setup.owner.delivered) == (0, [message])
    assert setup.owner.stats == {"sent": 1, "resent": 0, "acknowledged": 0, "dropped": 0}


def test_at_most_a_window_is_in_flight(setup):
    sent = setup.send(*plains(WINDOW + 5))
    assert len(setup.link.packets) == WINDOW
    setup.acknowledge(sent[0])
    setup.acknowledge(sent[1])
    setup.box.flush()
    assert len(setup.link.packets) == WINDOW + 2


def test_messages_of_qos_0_take_nothing_of_the_window(setup):
    setup.send(*plains(WINDOW - 1), *plains(20, 0), plain(99))
    assert len(setup.link.packets) == WINDOW + 20
    assert len(setup.box) == WINDOW


def test_acknowledgements_may_come_in_any_order(setup):
    sent = setup.send(*plains(6))
    for message in reversed(sent):
        setup.acknowledge(message)
    assert setup.owner.delivered == sent[::-1]
    assert len(setup.box) == 0


def test_an_unknown_acknowledgement_ends_nothing(setup):
    (message,) = setup.send(plain(1))
    setup.put(plain(2))  # has not left: its packet id is 0
    setup.box.acknowledge(message.packet_id + 7)
    setup.box.acknowledge(0)
    assert setup.owner.ended == []


def test_a_link_without_room_is_given_nothing(setup):
    setup.link.room = 2
    setup.send(*plains(5))
    assert len(setup.link.packets) == 2
    setup.link.room = 9
    setup.box.flush()
    assert len(setup.link.packets) == 5


def test_it_knows_what_has_not_left_yet(setup):
    setup.link.room = 1
    left, waits = setup.send(*plains(2))
    assert not setup.box.is_waiting(left)
    assert setup.box.is_waiting(waits)
    assert setup.box.is_waiting()
    assert not setup.box.is_waiting(plain(3))


def test_what_is_removed_is_told_to_nobody(setup):
    setup.link.room = 1
    left, waits = setup.send(*plains(2))
    setup.box.remove(waits)
    setup.box.remove(left)
    assert (len(setup.box), setup.owner.ended, waits.is_queued) == (0, [], False)


def test_removing_what_is_in_flight_makes_room_in_the_window(setup):
    sent = setup.send(*plains(WINDOW + 1))
    setup.box.remove(sent[3])
    setup.box.flush()
    assert setup.link.packets[-1].topic == "t/%d" % WINDOW


# --- numbers ---


def test_each_place_in_the_queue_has_a_new_number(setup):
    message = plain(1)
    setup.put(message)
    first = message.id
    setup.box.remove(message)
    setup.put(message)
    assert (first, message.id) == (1, 2)


def test_numbers_begin_again_at_1_after_the_largest_that_thingsboard_takes(setup):
    setup.box._last_id = MAX_ID - 1
    assert [setup.box.new_id() for _ in range(3)] == [MAX_ID, 1, 2]


@pytest.mark.parametrize("last", [0, PACKET_IDS - 20, MAX_ID - 20])
def test_packet_ids_are_never_0_nor_the_same_for_two_in_flight(setup, last):
    setup.box._last_id = last
    setup.send(*plains(WINDOW))
    ids = [packet.id for packet in setup.link.packets]
    assert len(set(ids)) == WINDOW
    assert min(ids) > 0
    assert max(ids) <= PACKET_IDS  # those above belong to SUBSCRIBE


def test_a_packet_id_that_is_still_in_flight_is_not_given_again(setup):
    (old,) = setup.send(plain(1))
    for _ in range(PACKET_IDS - 1):
        setup.box.new_id()  # messages that were dropped, requests
    (new,) = setup.send(plain(2))
    assert len(setup.link.packets) == 1
    setup.acknowledge(old)
    assert setup.owner.delivered == [old]
    setup.box.flush()
    assert setup.link.packets[0].id == setup.link.packets[1].id == new.packet_id


# --- losses ---


def test_after_a_loss_all_that_was_in_flight_leaves_again_in_order_and_with_dup(setup):
    sent = setup.send(*plains(3))
    setup.put(plain(3))
    setup.lose()
    for message in sent:
        setup.acknowledge(message)
        setup.box.flush()
    again = setup.link.packets[3:]
    assert [packet.topic for packet in again] == ["t/0", "t/1", "t/2", "t/3"]
    assert [packet.flags & DUP for packet in again] == [DUP, DUP, DUP, 0]
    assert (setup.owner.stats["sent"], setup.owner.stats["resent"]) == (4, 3)


def test_what_had_not_left_before_the_loss_leaves_without_dup(setup):
    setup.link.room = 0
    setup.send(*plains(2))
    setup.link.room = 9
    setup.lose()
    assert [packet.flags for packet in setup.link.packets] == [QOS_1, QOS_1]


def test_after_a_loss_nothing_that_was_in_flight_can_be_acknowledged(setup):
    (message,) = setup.send(plain(1))
    setup.box.rewind(LOST, False)
    setup.acknowledge(message)
    assert len(setup.box) == 1


def test_dup_is_gone_when_a_message_enters_again(setup):
    (message,) = setup.send(plain(1))
    setup.lose()
    setup.acknowledge(message)
    setup.send(message)
    assert setup.link.packets[-1].flags == QOS_1


def test_after_a_loss_the_front_travels_alone_until_it_is_acknowledged(setup):
    front, *others = setup.send(*plains(4), plain(4, 0))
    setup.lose()
    assert setup.link.packets[5:][0].topic == "t/0"
    assert len(setup.link.packets) == 5 + 1
    setup.acknowledge(front)
    setup.box.flush()
    assert len(setup.link.packets) == 6 + len(others[:3])


def test_a_loss_with_nothing_in_flight_is_no_mark(setup):
    setup.lose(times=LOSSES + 2)
    setup.send(*plains(4))
    assert len(setup.link.packets) == 4
    assert setup.owner.stats["dropped"] == 0


def test_the_front_is_dropped_after_so_many_losses_and_the_others_go_on(setup):
    front, *others = setup.send(*plains(3))
    setup.lose(times=LOSSES - 1)
    assert setup.owner.ended == []
    setup.lose()
    assert setup.owner.ended == [(front, "lost connection 8 times")]
    for message in others:
        setup.acknowledge(message)
    assert setup.owner.delivered == others
    assert setup.owner.stats["dropped"] == 1


def test_an_acknowledged_front_clears_the_marks(setup):
    first, second = setup.send(*plains(2))
    setup.lose(times=LOSSES - 1)
    setup.acknowledge(first)
    setup.box.flush()
    setup.lose(times=LOSSES - 1)
    assert setup.owner.dropped == []
    setup.lose()
    assert setup.owner.dropped == [second]


def test_the_first_loss_is_a_mark_even_if_we_closed(setup):
    setup.send(*plains(2))
    setup.lose(reason=None, was_cut=True)
    assert len(setup.link.packets) == 3  # the front alone


@pytest.mark.parametrize("loss", [{"reason": None}, {"was_cut": True}], ids=["closed", "was_cut"])
def test_a_further_loss_is_no_mark_if_we_closed_or_a_packet_had_left_in_part(setup, loss):
    setup.send(plain(1))
    setup.lose()
    setup.lose(times=3 * LOSSES, **loss)
    assert setup.owner.ended == []


def test_a_further_loss_is_no_mark_if_nothing_had_left(setup):
    setup.send(plain(1))
    setup.lose()
    setup.link.room = 0
    setup.lose(times=3 * LOSSES)
    assert setup.owner.ended == []


# --- no memory ---


def test_without_memory_a_packet_stays_and_the_front_is_tried_alone(setup):
    setup.link.has_no_memory = True
    setup.send(*plains(3))
    assert isinstance(setup.owner.last_error, MemoryError)
    assert (len(setup.box), setup.owner.ended) == (3, [])
    setup.link.has_no_memory = False
    setup.box.flush()
    assert [packet.topic for packet in setup.link.packets] == ["t/0"]
    assert setup.owner.stats["sent"] == 1


def test_a_message_for_which_there_is_never_memory_is_dropped_after_so_many_timeouts(setup):
    setup.link.has_no_memory = True
    (message,) = setup.send(plain(1))
    setup.lose(times=LOSSES, reason=LOST)
    assert setup.owner.ended == []  # only what ends as a timeout counts
    setup.lose(times=LOSSES - 1, reason=TBTimeoutError("no acknowledgement"))
    assert setup.owner.dropped == [message]


# --- a full queue ---


def test_the_oldest_telemetry_gives_way(clock):
    setup = Setup(3)
    setup.link.room = 0
    first, old, young, last = setup.send(plain(0), reading(1), reading(2), plain(3))
    assert setup.owner.dropped == [old]
    assert setup.owner.stats["dropped"] == 1
    assert [message.is_queued for message in (first, old, young, last)] == [True, False, True, True]


def test_telemetry_that_waits_gives_way_before_what_is_in_flight(clock):
    setup = Setup(3)
    setup.link.room = 1
    _, waits, _ = setup.send(reading(0), reading(1), plain(2))
    setup.put(plain(3))
    assert setup.owner.dropped == [waits]


def test_telemetry_in_flight_gives_way_before_a_question_that_waits(clock):
    setup = Setup(2)
    setup.link.room = 1
    in_flight, _ = setup.send(reading(0), plain(1))
    setup.put(plain(2))
    assert setup.owner.dropped == [in_flight]
    assert in_flight.packet_id == 0  # as if it had never left
    setup.link.room = 9
    setup.box.flush()
    assert [packet.topic for packet in setup.link.packets] == [TELEMETRY, "t/1", "t/2"]


def test_without_telemetry_the_oldest_that_waits_gives_way(clock):
    setup = Setup(3)
    setup.link.room = 1
    _, waits, _ = setup.send(*plains(3))
    setup.put(plain(3))
    assert setup.owner.dropped == [waits]


def test_what_gives_way_itself_costs_no_other_its_place(clock):
    setup = Setup(2)
    setup.link.room = 0
    setup.send(reading(0), reading(1))
    polite = plain(2)
    setup.box.put(polite, True)
    assert setup.owner.dropped == [polite]
    assert not polite.is_queued


def test_what_would_give_way_enters_where_there_is_room(clock):
    setup = Setup(2)
    setup.box.put(plain(0), True)
    assert len(setup.box) == 1


def test_the_reason_names_the_limit_and_why_we_are_offline(clock):
    setup = Setup(1)
    setup.put(*plains(2))
    ((_, reason),) = setup.owner.ended
    assert reason == "queue full: 1 messages, queue_size=1: why"


def test_as_many_give_way_as_the_bytes_need(clock):
    setup = Setup(size_bytes=4 * (OVERHEAD_BYTES + 100))
    small_ones = [_Message(TELEMETRY, [b"x" * 100], QOS_1, True) for _ in range(4)]
    setup.put(*small_ones)
    assert setup.owner.ended == []
    setup.put(_Message("t", [b"x" * 150]))
    assert setup.owner.dropped == small_ones[:2]
    assert "queue_bytes=656" in setup.owner.ended[0][1]


def test_the_bytes_of_what_ended_are_free_again(clock):
    setup = Setup(size_bytes=2 * (OVERHEAD_BYTES + 7))
    for number in range(50):
        (message,) = setup.send(plain(number % 10))
        setup.acknowledge(message)
    assert setup.owner.stats["dropped"] == 0
    assert setup.box.has_room(2, 2 * 7)
    assert not setup.box.has_room(2, 2 * 7 + 1)


def test_it_says_for_how_many_there_is_room(clock):
    setup = Setup(3)
    setup.put(plain(0))
    assert setup.box.has_room(2, 0)
    assert not setup.box.has_room(3, 0)


def test_a_reply_finds_a_place_where_there_is_room_or_telemetry(clock):
    setup = Setup(2)
    setup.put(plain(0))
    assert setup.box.has_place()
    setup.put(plain(1))
    assert not setup.box.has_place()
    setup.put(reading(2))  # gives way itself
    assert not setup.box.has_place()
    setup.box.remove(setup.box._entries[0])
    setup.put(reading(3))
    assert setup.box.has_place()


# --- limits ---


@pytest.mark.parametrize(
    ("max_message_bytes", "size_bytes", "limit"),
    [(500, 1 << 20, 500), (1 << 20, 1000, 1000 - OVERHEAD_BYTES), (1 << 20, 1 << 20, 64384)],
)
def test_a_payload_is_limited_by_the_smallest_of_three(clock, max_message_bytes, size_bytes, limit):
    setup = Setup(size_bytes=size_bytes)
    setup.owner.max_message_bytes = max_message_bytes
    assert setup.box.limit() == limit
    setup.put(_Message("t", [b"x" * limit]))
    with pytest.raises(ValueError, match="the limit is %d" % limit):
        setup.put(_Message("t", [b"x" * (limit + 1)]))
    assert (len(setup.box), setup.owner.ended) == (1, [])


def test_more_than_the_queue_holds_is_refused_as_a_whole(clock):
    setup = Setup(2, size_bytes=500)
    setup.box.check_room(plains(2))
    setup.box.check_room([_Message("t", [b"x" * (500 - OVERHEAD_BYTES)])])
    with pytest.raises(ValueError, match=r"3 messages .*queue_size=2"):
        setup.box.check_room(plains(3))
    with pytest.raises(ValueError, match=r"528 bytes .*queue_bytes=500"):
        setup.box.check_room([_Message("t", [b"x" * 200]), _Message("t", [b"x" * 200])])
    assert len(setup.box) == 0


def test_room_is_expected_as_long_as_acknowledgements_come(setup, clock):
    assert not setup.box.is_moving()
    first, _ = setup.send(*plains(2))
    assert setup.box.is_moving()
    clock.advance(1999)
    assert setup.box.is_moving()
    setup.acknowledge(first)
    clock.advance(1999)
    assert setup.box.is_moving()
    clock.advance(1)
    assert not setup.box.is_moving()


def test_no_room_is_expected_when_nothing_is_in_flight(setup):
    (message,) = setup.send(plain(1))
    setup.acknowledge(message)
    assert not setup.box.is_moving()


def test_room_is_expected_as_long_as_the_socket_takes_bytes(setup):
    (message,) = setup.send(plain(1))
    setup.acknowledge(message)
    setup.link.room = 0
    assert setup.box.is_moving()


def test_what_is_sent_meanwhile_does_not_pass_for_an_acknowledgement(setup, clock):
    setup.send(plain(1))
    clock.advance(1999)
    setup.send(plain(2))
    clock.advance(1)
    assert not setup.box.is_moving()


# --- times of readings ---

BASE_MS = EPOCH_S * 1000


@pytest.fixture
def day(clock):
    """A clock that is set."""
    clock.day_s = EPOCH_S
    return clock


def test_a_reading_that_leaves_alone_and_at_once_tells_no_time(day, setup):
    setup.send(reading(1))
    assert setup.link.payloads == [b'{"n":1}']


def test_a_reading_that_waited_tells_when_it_was_taken(day, setup):
    setup.put(reading(1))
    day.advance(4000)
    setup.box.flush()
    assert stamped_rows(setup.link.packets[0]) == [(BASE_MS, 1)]


def test_a_reading_behind_one_that_is_not_acknowledged_tells_a_time_far_from_it(day, setup):
    setup.send(reading(1))
    day.advance(APART_MS)
    setup.send(reading(2))
    first, second = setup.link.payloads
    assert first == b'{"n":1}'
    assert json.loads(second)[0]["ts"] == BASE_MS + 100


def test_behind_the_acknowledgement_a_reading_leaves_without_a_time_again(day, setup):
    for number in range(2):
        (message,) = setup.send(reading(number))
        setup.acknowledge(message)
        day.advance(APART_MS)
    assert setup.link.payloads == [b'{"n":0}', b'{"n":1}']


@pytest.mark.parametrize(("ms", "tells"), [(APART_MS - 1, False), (APART_MS, True)])
def test_a_reading_waits_for_two_milliseconds_before_it_tells_its_time(day, setup, ms, tells):
    setup.put(reading(1))
    day.advance(ms)
    setup.box.flush()
    assert (b"ts" in setup.link.payloads[0]) is tells


def test_a_reading_before_connack_tells_its_time(day, setup):
    setup.link.is_accepted = False
    setup.send(reading(1))
    assert stamped_rows(setup.link.packets[0]) == [(BASE_MS, 1)]


def test_a_reading_that_leaves_again_tells_its_time(day, setup):
    setup.send(reading(1))
    setup.lose()
    first, second = setup.link.packets
    assert first.payload == b'{"n":1}'
    assert stamped_rows(second) == [(BASE_MS, 1)]


def test_readings_that_tell_their_times_travel_together_in_order(day, setup):
    setup.put(*readings(10))
    day.advance(50)
    setup.box.flush()
    (packet,) = setup.link.packets
    assert stamped_rows(packet) == [(BASE_MS + n, n) for n in range(10)]
    assert setup.owner.stats["sent"] == 1


def test_one_acknowledgement_ends_all_that_travelled_together(day, setup):
    sent = setup.put(*readings(5))
    day.advance(50)
    setup.box.flush()
    assert len({message.packet_id for message in sent}) == 1
    setup.acknowledge(sent[0])
    assert setup.owner.delivered == sent
    assert setup.owner.stats["acknowledged"] == 5


def test_each_that_travels_in_a_packet_counts_for_the_window(day, setup):
    setup.put(*readings(20), *plains(40))
    day.advance(50)
    setup.box.flush()
    assert len(setup.link.packets) == 1 + WINDOW - 20


def test_readings_of_qos_0_that_travel_together_end_together(day, setup):
    sent = setup.put(*readings(5, 0))
    day.advance(50)
    setup.box.flush()
    assert len(setup.link.packets) == 1
    assert setup.owner.delivered == sent
    assert len(setup.box) == 0


def test_a_packet_of_readings_stays_below_its_limit_of_bytes(day, setup):
    setup.put(*[reading(n, padding=100) for n in range(30)])
    day.advance(200)
    setup.box.flush()
    assert [n for packet in setup.link.packets for _, n in stamped_rows(packet)] == list(range(30))
    sizes = [len(packet.payload) for packet in setup.link.packets]
    assert max(sizes) <= BATCH_BYTES
    assert min(sizes[:-1]) > BATCH_BYTES // 2


def test_a_packet_of_readings_is_no_longer_than_a_payload_may_be(day, setup):
    setup.owner.max_message_bytes = 300
    setup.put(*readings(20))
    day.advance(200)
    setup.box.flush()
    assert len(setup.link.packets) > 1
    assert max(map(len, setup.link.payloads)) <= 300


def test_a_reading_above_the_limit_of_a_packet_travels_alone(day, setup):
    setup.put(reading(0), reading(1, padding=2000), reading(2))
    day.advance(200)
    setup.box.flush()
    assert [[n for _, n in stamped_rows(packet)] for packet in setup.link.packets] == [
        [0],
        [1],
        [2],
    ]


def test_only_readings_with_the_same_flags_travel_together(day, setup):
    setup.put(reading(0), reading(1), reading(2, 0), reading(3, 0), reading(4))
    day.advance(200)
    setup.box.flush()
    packets = setup.link.packets
    assert [packet.flags for packet in packets] == [QOS_1, 0, QOS_1]
    assert [n for packet in packets for _, n in stamped_rows(packet)] == [0, 1, 2, 3, 4]


def test_readings_do_not_overtake_what_stands_between_them(day, setup):
    setup.put(reading(0), plain(1), reading(2))
    day.advance(200)
    setup.box.flush()
    assert [packet.topic for packet in setup.link.packets] == [TELEMETRY, "t/1", TELEMETRY]


def test_after_a_loss_a_reading_travels_alone_too(day, setup):
    setup.put(*readings(3))
    day.advance(200)
    setup.box.flush()
    setup.lose()
    assert stamped_rows(setup.link.packets[1]) == [(BASE_MS, 0)]


def test_readings_of_one_message_get_a_millisecond_each(day, setup):
    message = _Message(TELEMETRY, [b'{"n":0}', b'{"n":1}', b'{"n":2}'], QOS_1, True)
    setup.put(message, reading(3))
    day.advance(200)
    setup.box.flush()
    assert stamped_rows(setup.link.packets[0]) == [(BASE_MS + n, n) for n in range(4)]


def test_readings_with_a_time_keep_it_and_travel_with_the_others(day, setup):
    setup.put(reading(0), reading(1, ts=77), reading(2))
    day.advance(200)
    setup.box.flush()
    (packet,) = setup.link.packets
    assert stamped_rows(packet) == [(BASE_MS, 0), (77, 1), (BASE_MS + 2, 2)]


def test_one_reading_with_a_time_leaves_as_it_is(day, setup):
    setup.send(reading(1, ts=77))
    assert setup.link.payloads == [b'{"ts":77,"values":{"n":1}}']


def test_always_stamp_means_at_once_too(day):
    setup = Setup(stamp="always")
    setup.send(reading(1))
    assert stamped_rows(setup.link.packets[0]) == [(BASE_MS, 1)]


def test_never_stamp_means_however_late(day):
    setup = Setup(stamp="never")
    setup.put(reading(1))
    day.advance(9000)
    setup.box.flush()
    assert setup.link.payloads == [b'{"n":1}']


# --- the clock ---


def test_without_a_clock_readings_leave_one_by_one_each_behind_the_last_acknowledgement(
    setup, clock
):
    messages = setup.put(*readings(3))
    clock.advance(500)
    for number, message in enumerate(messages):
        setup.box.flush()
        assert len(setup.link.packets) == number + 1
        setup.acknowledge(message)
        setup.box.flush()
        assert len(setup.link.packets) == number + 1
        clock.advance(APART_MS)
    assert setup.link.payloads == [b'{"n":0}', b'{"n":1}', b'{"n":2}']


def test_without_a_clock_only_one_reading_leaves_before_connack(setup, clock):
    setup.link.is_accepted = False
    setup.put(*readings(3))
    for _ in range(5):
        setup.box.flush()
        clock.advance(1000)
    assert setup.link.payloads == [b'{"n":0}']


def test_a_clock_that_is_set_later_tells_the_time_of_what_was_taken_before(setup, clock):
    clock.now_ms = 500
    setup.put(reading(1))
    clock.now_ms = 60500
    clock.day_s = EPOCH_S + 100
    setup.box.flush()
    # The example of `_Outbox.knows_time`.
    assert stamped_rows(setup.link.packets[0]) == [(1700000040000, 1)]


def test_readings_do_not_move_against_each_other_as_whole_seconds_pass(day, setup):
    day.has_whole_seconds = True
    taken = []
    for number in range(20):
        setup.put(reading(number))
        taken.append(day.now_ms)
        day.advance(333)
        setup.box.flush()
    times = [ts for packet in setup.link.packets for ts, _ in stamped_rows(packet)]
    assert [ts - times[0] for ts in times] == [at - taken[0] for at in taken]


def test_a_clock_that_is_corrected_tells_other_times_from_then_on(day, setup):
    setup.put(reading(1))
    day.advance(1000)
    day.day_s += 3600
    setup.box.flush()
    assert stamped_rows(setup.link.packets[0]) == [(BASE_MS + 3600000, 1)]


def test_a_clock_that_is_lost_again_leaves_the_times_as_they_were(day, setup):
    assert setup.box.knows_time()
    day.day_s = 0
    setup.put(reading(1))
    day.advance(1000)
    setup.box.flush()
    assert stamped_rows(setup.link.packets[0]) == [(BASE_MS, 1)]


def test_readings_taken_in_the_same_millisecond_have_different_times(day, setup):
    for number in range(300):
        setup.send(reading(number % 10, 0))
    stamped = [packet for packet in setup.link.packets if b"ts" in packet.payload]
    times = [ts for packet in stamped for ts, _ in stamped_rows(packet)]
    assert len(times) == 299
    assert sorted(set(times)) == times


# --- gates ---


class Gate:
    """A companion that is asked; *is_open*: its answer, an exception: raised."""

    def __init__(self, is_open=True):
        self.is_open = is_open
        self.asked = []
        self.told = []

    def may_send(self, topic, data_points):
        self.asked.append((topic, data_points))
        if isinstance(self.is_open, Exception):
            raise self.is_open
        return self.is_open

    def sent(self, topic, data_points):
        self.told.append((topic, data_points))
        if isinstance(self.is_open, Exception):
            raise self.is_open


@pytest.fixture
def gate(setup):
    setup.gates.append(Gate())
    return setup.gates[0]


@pytest.mark.parametrize(
    ("topic", "payload", "points"),
    [
        (TELEMETRY, b'{"a":1,"b":2}', 2),
        (TELEMETRY, b'{"ts":1700000000005,"values":{"a":1,"b":2,"c":3}}', 3),
        (TELEMETRY, b'[{"a":1},{"ts":1700000000005,"values":{"a":1,"b":2}}]', 3),
        (TELEMETRY, b'{"ts":5,"a":1}', 2),
        (TELEMETRY, b'{"values":{"a":1,"b":2}}', 1),
        ("v2/t", b'{"a":1,"b":2}', 2),
        (ATTRIBUTES, b'{"a":1,"b":{"c":1,"d":2}}', 2),
        ("v2/a", b'{"a":1}', 1),
        (ATTRIBUTES + "/request/1", b'{"sharedKeys":"a,b"}', 0),
        ("v2/r/res/7", b'{"a":1}', 0),
        ("v1/devices/me/rpc/response/7", b'"ok"', 0),
        ("v1/devices/me/rpc/response/7", b"5", 0),
        ("any/topic", b"\xff\x00", 0),
        (TELEMETRY, b"\xff\x00", 0),
        (TELEMETRY, b"", 0),
        (TELEMETRY, b"5", 0),
    ],
)
def test_a_gate_is_asked_with_the_topic_and_what_thingsboard_counts(
    setup, gate, topic, payload, points
):
    setup.send(_Message(topic, [payload]))
    assert gate.asked == gate.told == [(topic, points)]
    assert setup.link.payloads == [payload]


def test_readings_that_travel_together_are_asked_for_once(day, setup, gate):
    setup.put(*readings(4), reading(5, ts=1700000000077))
    day.advance(200)
    setup.box.flush()
    assert gate.asked == gate.told == [(TELEMETRY, 5)]


def test_a_closed_gate_holds_the_message_and_all_behind_it(setup, gate):
    gate.is_open = False
    setup.send(*plains(3))
    setup.box.flush()
    assert setup.link.packets == []
    assert gate.told == []
    assert set(gate.asked) == {("t/0", 0)}
    gate.is_open = True
    setup.box.flush()
    assert [topic for topic, _ in gate.told] == ["t/0", "t/1", "t/2"]
    assert len(setup.link.packets) == 3


def test_one_closed_gate_of_several_is_enough(setup, gate):
    setup.gates.append(Gate(False))
    setup.send(plain(1))
    assert setup.link.packets == []
    assert gate.told == []
    setup.gates[1].is_open = True
    setup.box.flush()
    assert gate.told == setup.gates[1].told == [("t/1", 0)]


def test_a_gate_is_told_again_what_leaves_again(setup, gate):
    setup.send(plain(1))
    setup.lose()
    assert gate.told == [("t/1", 0)] * 2


def test_a_gate_is_not_told_what_did_not_leave_for_want_of_memory(setup, gate):
    setup.link.has_no_memory = True
    setup.send(plain(1))
    assert gate.told == []
    setup.link.has_no_memory = False
    setup.box.flush()
    assert gate.told == [("t/1", 0)]


@pytest.mark.parametrize("error", [ValueError("own"), MemoryError("own")])
def test_a_gate_that_raises_holds_nothing(setup, gate, error):
    gate.is_open = error
    sent = setup.send(*plains(2))
    assert len(setup.link.packets) == 2
    assert setup.owner.errors == [error] * 4
    for message in sent:
        setup.acknowledge(message)
    assert setup.owner.delivered == sent


def test_when_a_gate_is_told_the_message_has_left(setup, gate):
    seen = []
    gate.sent = lambda topic, points: seen.append((len(setup.link.packets), len(setup.box)))
    setup.send(plain(1, 0))
    assert seen == [(1, 0)]
