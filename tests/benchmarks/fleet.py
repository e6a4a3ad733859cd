# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A thousand devices whose server restarts: who is back when, and does a reading get lost?

Once over real sockets, with a server that is killed. There the devices of one process take turns,
which spreads them by itself. So what jitter is good for, long outages, and a server that takes only
so many connects a second are shown in memory, on a clock of its own, the same in every run.
"""

import bisect
import collections
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import tb_device_mqtt
from fakes import Clock, FakePool, MemoryServer
from helpers import free_port

from . import pictures
from .tables import Row, Table, at_most, exactly

try:
    import resource
except ImportError:  # Windows counts no open files
    resource = None  # type: ignore[assignment]

ALL_BACK_S = 120
_TESTS = Path(__file__).resolve().parent.parent
_SPARE_FILES = 100  # of this process, beside the sockets of the devices
_SEED = 2026
_POLL_S = 0.02  # between two rounds of the fleet
_STEP_MS = 100  # the same on the clock of the simulation
_STEADY_S = 12  # online before the server goes down: sooner it looks like a rival's doing
_MUTE_S = 15  # without an acknowledgement: less than makes a client give the connection up
_GIVE_UP_S = 300

# In the busiest second so much of the fleet may connect: outage in seconds, share. Not gated for a
# server that is back at once, which meets all: a lone device is not to wait for long.
_PEAKS = {5: 0.6, 30: 0.1, 300: 0.05}
_PICTURED_S = 30
_PEER = "without jitter"


class Storm:
    """What a restart of the server did to a fleet. Times are seconds after the connections broke.

    *sent*: how many readings, of each device; *arrived*: their numbers, in the order in which
    they came
    """

    def __init__(self, attempts, returns, up_s, sent, arrived):
        self.devices = len(sent)
        self.attempts = attempts
        self.returns = returns
        self.up_s = up_s
        self.refused = len(attempts) - len(returns)
        self.lost = self.twice = self.out_of_order = 0
        for count, numbers in zip(sent, arrived):
            firsts = list(dict.fromkeys(numbers))
            self.lost += count - len(firsts)
            self.twice += len(numbers) - len(firsts)
            self.out_of_order += firsts != sorted(firsts)

    def back_s(self, percent):
        """Seconds from the server's return until so many are back; None: they never were."""
        place = -(-self.devices * percent // 100) - 1
        return self.returns[place] - self.up_s if place < len(self.returns) else None

    @property
    def peak(self):
        """Connects in the busiest second since the server's return."""
        return peak([at for at in self.attempts if at >= self.up_s])


def peak(times):
    """How many of the sorted *times* fall into one second at most."""
    return max(
        (bisect.bisect_left(times, at + 1) - count for count, at in enumerate(times)), default=0
    )


def by_second(times):
    """``[(second, how many of *times*, None for none), ...]``"""
    counts = collections.Counter(int(at) for at in times)
    return [(second, counts.get(second)) for second in range(min(counts), max(counts) + 1)]


# --- the fleet ---


class Fleet:
    """Devices that send numbered readings all the time, driven by turns.

    :param clients: a `TBDeviceMqttClient` each
    :param now_s: the clock
    :param interval_s: between two readings of a device
    """

    def __init__(self, clients, now_s, interval_s):
        self.clients = clients
        self.sent = [0] * len(clients)
        self.is_sending = True
        self._now_s = now_s
        self._interval_s = interval_s
        start_s = now_s()
        self._due_s = [start_s + interval_s * n / len(clients) for n in range(len(clients))]
        self.forget()
        for client in clients:
            client.on_state = self._note
            client.connect(timeout=0)

    def forget(self):
        """Note attempts and returns anew."""
        self.attempts = []
        self.returns = []

    def _note(self, _client, _user_data, state, _reason):
        if state == "connecting":
            self.attempts.append(self._now_s())
        elif state == "online":
            self.returns.append(self._now_s())

    def poll(self):
        """Give each device its turn."""
        for number, client in enumerate(self.clients):
            self.poll_one(number, client)

    def poll_one(self, number, client):
        if self.is_sending and self._now_s() >= self._due_s[number]:
            self._due_s[number] += self._interval_s
            client.send_telemetry({"n": self.sent[number]})
            self.sent[number] += 1
        client.check_for_msg()

    @property
    def is_online(self):
        return all(client.connected for client in self.clients)

    @property
    def is_done(self):
        """Everything sent is acknowledged."""
        return not any(client.pending_messages_count for client in self.clients)

    def storm(self, lost_at_s, up_at_s, arrived):
        attempts = [round(at - lost_at_s, 3) for at in self.attempts]
        returns = [round(at - lost_at_s, 3) for at in self.returns]
        return Storm(attempts, returns, round(up_at_s - lost_at_s, 3), self.sent, arrived)


def _jitter(is_on):
    """The library's chance, the same in every run; or none at all."""
    chance = random.Random(_SEED).random if is_on else lambda: 0.5
    return mock.patch.object(tb_device_mqtt, "random", chance)


# --- over real sockets ---


class KilledServer:
    """The stand-in in a process of its own; see `fleet_server`."""

    def __init__(self, devices, folder):
        self._arguments = [str(free_port()), str(devices), str(Path(folder, "ledger"))]
        self._process = None
        self.port = int(self._arguments[0])
        self.ups = 0

    def start(self):
        paths = (_TESTS, _TESTS.parent, _TESTS.parent / "examples")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fleet_server", *self._arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        )

    def kill(self):
        self._process.kill()
        self._process.wait()

    @property
    def _ledger(self):
        with contextlib.suppress(FileNotFoundError):
            return Path(self._arguments[2]).read_text(encoding="ascii").splitlines()
        return []

    def up_at_s(self):
        """When it was last ready for connections, by `time.monotonic`."""
        ups = [line for line in self._ledger if line.startswith("up ")]
        return float(ups[-1].split()[1]) if ups else None

    def arrived(self, devices):
        numbers = [[] for _ in range(devices)]
        for line in self._ledger:
            if not line.startswith("up "):
                device, number = line.split()
                numbers[int(device)].append(int(number))
        return numbers


class Costs:
    """What this process pays for the devices."""

    def __init__(self):
        self.cpu_s, self._since_s = time.process_time(), time.perf_counter()
        self.memory = _resident_bytes()

    def cpu_share(self, earlier):
        return (self.cpu_s - earlier.cpu_s) / (self._since_s - earlier._since_s)


def _resident_bytes():
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def allowed(devices):
    """So many of *devices* as this process may open sockets for, and why not more."""
    if resource is None:
        return devices, ""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = devices + _SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted >= devices + _SPARE_FILES:
        return devices, ""
    reason = " Fewer than %d devices, because a process may have only %d open files here."
    return wanted - _SPARE_FILES, reason % (devices, hard)


def restart(devices, down_s, steady_s=_STEADY_S, interval_s=5):
    """``(Storm, bytes a device, share of a CPU)``: the server is killed and started again."""
    before = Costs()
    with tempfile.TemporaryDirectory() as folder, _jitter(True):
        server = KilledServer(devices, folder)
        server.start()
        _until(lambda: server.up_at_s() is not None)
        clients = [
            tb_device_mqtt.TBDeviceMqttClient("127.0.0.1", server.port, "T%d" % number)
            for number in range(devices)
        ]
        fleet = Fleet(clients, time.monotonic, interval_s)
        try:
            _run(fleet, lambda: fleet.is_online)
            online = Costs()
            _run_for(fleet, steady_s)
            steady = Costs()
            server.kill()
            lost_at_s = time.monotonic()
            fleet.forget()
            _run_for(fleet, down_s)
            server.start()
            _run(fleet, lambda: len(fleet.returns) == devices)
            fleet.is_sending = False
            _run(fleet, lambda: fleet.is_done)
            storm = fleet.storm(lost_at_s, server.up_at_s(), server.arrived(devices))
        finally:
            for client in clients:
                client.disconnect()
            server.kill()
    memory = None if before.memory is None else (steady.memory - before.memory) // devices
    return storm, memory, steady.cpu_share(online)


def _run(fleet, condition):
    def is_met():
        fleet.poll()
        return condition()

    _until(is_met)


def _run_for(fleet, seconds):
    end_s = time.monotonic() + seconds
    _run(fleet, lambda: time.monotonic() >= end_s)


def _until(condition):
    end_s = time.monotonic() + _GIVE_UP_S
    while not condition():
        if time.monotonic() > end_s:
            raise AssertionError("the fleet is not there after %d s" % _GIVE_UP_S)
        time.sleep(_POLL_S)


# --- in memory, on a clock of its own ---


class Simulation:
    """A fleet, its server and its time, all in memory."""

    def __init__(self, devices, clock, interval_s):
        self._clock = clock
        self._limit = None
        self._is_down = False
        self._window = (0, 0)  # a second, and what the server had accepted when it began
        self._server = MemoryServer(clock)
        self._pools = [FakePool(self._server.pool.accept) for _ in range(devices)]
        self._devices = [
            self._server.add_device("Device %d" % number, "T%d" % number)
            for number in range(devices)
        ]
        clients = [
            tb_device_mqtt.TBDeviceMqttClient("memory", None, "T%d" % number, socket_pool=pool)
            for number, pool in enumerate(self._pools)
        ]
        self.fleet = Fleet(clients, self.now_s, interval_s)

    def now_s(self):
        return self._clock.now_ms / 1000

    def stop_server(self):
        """It acknowledges no more, then connections end with FIN, and new ones are refused."""
        self._server.faults.mute_puback = True
        self.run_for(_MUTE_S)
        self._server.faults.mute_puback = False
        self._is_down = True
        self._server.call(self._server.board.close_sessions, False)

    def start_server(self, connects_a_second):
        """More connects than those it refuses; None: it takes all."""
        self._is_down = False
        self._limit = connects_a_second

    def run(self, condition, timeout_s=_GIVE_UP_S):
        end_s = self.now_s() + timeout_s
        while not condition() and self.now_s() < end_s:
            self._clock.advance(_STEP_MS)
            for number, client in enumerate(self.fleet.clients):
                self._poll(number, client, self._pools[number])

    def run_for(self, seconds):
        self.run(lambda: False, seconds)

    def _poll(self, number, client, pool):
        pool.refuse = self._is_down or self._is_full()
        if pool.socket_now is not None:
            pool.socket_now.begin_poll()
        self.fleet.poll_one(number, client)
        pool.deliver()

    def _is_full(self):
        if self._limit is None:
            return False
        accepted, second = self._server.board.accepted, int(self.now_s())
        if self._window[0] != second:
            self._window = (second, accepted)
        return accepted - self._window[1] >= self._limit

    def arrived(self):
        return [[row["n"] for _, row in device.telemetry] for device in self._devices]


def simulate(devices, down_s, is_jitter=True, connects_a_second=None, interval_s=10):
    """The `Storm` after *down_s* without a server, `ALL_BACK_S` from its return on at most."""
    with Clock() as clock, _jitter(is_jitter):
        simulation = Simulation(devices, clock, interval_s)
        fleet = simulation.fleet
        simulation.run(lambda: fleet.is_online)
        simulation.run_for(_STEADY_S)
        simulation.stop_server()
        lost_at_s = simulation.now_s()
        fleet.forget()
        simulation.run_for(down_s)
        up_at_s = simulation.now_s()
        simulation.start_server(connects_a_second)
        simulation.run(lambda: len(fleet.returns) == devices, ALL_BACK_S)
        fleet.is_sending = False
        simulation.run(lambda: fleet.is_done or len(fleet.returns) < devices)
        return fleet.storm(lost_at_s, up_at_s, simulation.arrived())


# --- the answer ---


def fleet(
    devices=1000, down_s=5, steady_s=_STEADY_S, simulated=1000, outages_s=(0, 5, 30, 300), limit=50
):
    """A thousand devices whose server restarts: are all back soon, and is nothing lost?"""
    allowed_devices, reason = allowed(devices)
    storm, memory_bytes, cpu_share = restart(allowed_devices, down_s, steady_s)
    storms = {outage: _with_and_without(simulated, outage) for outage in outages_s}
    table = Table(
        [
            *_rows_of_a_kill(storm, "killed for %g s" % down_s),
            Row("memory of a device, online", memory_bytes, "B"),
            Row("a CPU's time for all, polled 50 times a second", 100 * cpu_share, "%"),
            *(row for outage, pair in storms.items() for row in _rows_of_an_outage(outage, *pair)),
            _row_of_a_limit(limit, *_with_and_without(simulated, 30, limit)),
        ],
        "%d real clients in one process, the server in another, over sockets; and %d in memory, on "
        "a clock of their own, with and without jitter. Times are from the server's return on. In "
        "memory the server takes what comes in its last %d s and does not acknowledge it: that is "
        "what comes twice.%s" % (allowed_devices, simulated, _MUTE_S, reason),
    )
    if _PICTURED_S in storms:
        table.draw = lambda folder: _draw(folder, *storms[_PICTURED_S])
    return table


def _with_and_without(devices, outage_s, limit=None):
    return [simulate(devices, outage_s, is_jitter, limit) for is_jitter in (True, False)]


def _rows_of_a_kill(storm, name):
    return [
        Row("%s: half are back" % name, storm.back_s(50), "s"),
        Row("%s: 99 %% are back" % name, storm.back_s(99), "s"),
        Row("%s: all are back" % name, storm.back_s(100), "s", at_most(ALL_BACK_S)),
        Row("%s: connects in the busiest second" % name, storm.peak),
        Row("%s: refused attempts" % name, storm.refused),
        *_rows_of_readings(storm, name),
    ]


def _rows_of_an_outage(outage_s, ours, peer):
    name = "away for %g s" % outage_s
    share = _PEAKS.get(outage_s)
    most = at_most(int(share * ours.devices)) if share else None

    def row(what, read, unit="", budget=None):
        beside = {_PEER: read(peer)}
        return Row("%s: %s" % (name, what), read(ours), unit, budget, beside=beside)

    return [
        row("all are back", lambda storm: storm.back_s(100), "s", at_most(ALL_BACK_S)),
        row("connects in the busiest second", lambda storm: storm.peak, "", most),
        row("refused attempts", lambda storm: storm.refused),
        *_rows_of_readings(ours, name),
    ]


def _rows_of_readings(storm, name):
    return [
        Row("%s: readings lost" % name, storm.lost, "", exactly(0)),
        Row("%s: readings twice" % name, storm.twice),
        Row(
            "%s: devices whose readings came out of order" % name,
            storm.out_of_order,
            "",
            exactly(0),
        ),
    ]


def _row_of_a_limit(limit, ours, peer):
    what = "away for 30 s, then %d connects a second: back within 2 minutes" % limit
    returns = {_PEER: len(peer.returns)}
    return Row(what, len(ours.returns), "", exactly(ours.devices), beside=returns)


def _draw(folder, ours, peer):
    series = [
        pictures.Line(name, by_second([at for at in storm.attempts if at >= storm.up_s]), is_ours)
        for name, storm, is_ours in (("with jitter", ours, True), (_PEER, peer, False))
    ]
    title = "%d devices connect again after an outage of %d s" % (ours.devices, _PICTURED_S)
    pictures.lines(
        Path(folder, "fleet.svg"),
        title,
        series,
        "seconds since the connections broke",
        "connects a second",
    )
