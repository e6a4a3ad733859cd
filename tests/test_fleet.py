# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A thousand devices whose server restarts, in memory; over sockets it is the benchmark "fleet"."""

import pytest

from benchmarks import fleet
from benchmarks.fleet import Storm

DEVICES = 1000
pytestmark = pytest.mark.usefixtures("not_measured")


@pytest.fixture(scope="module")
def storm(not_measured):
    """The server is away for half a minute."""
    return fleet.simulate(DEVICES, down_s=30)


def test_every_device_is_back_within_two_minutes(storm):
    assert len(storm.returns) == DEVICES
    assert storm.back_s(100) <= 120


def test_nothing_is_lost_and_every_device_keeps_its_order(storm):
    assert storm.twice > 0, "what the server took, and did not acknowledge"
    assert (storm.lost, storm.out_of_order) == (0, 0)


def test_a_fleet_without_jitter_comes_back_in_one_instant_and_with_it_does_not(storm):
    without = fleet.simulate(DEVICES // 4, down_s=30, is_jitter=False)
    assert without.peak == DEVICES // 4
    assert storm.peak <= DEVICES / 10


def test_a_short_restart_does_not_bring_all_back_at_once():
    assert fleet.simulate(DEVICES, down_s=5).peak <= 0.6 * DEVICES


def test_a_long_outage_does_not_make_devices_hesitate_for_long():
    assert fleet.simulate(DEVICES // 5, down_s=300).back_s(100) <= 120


def test_a_server_that_takes_few_connects_a_second_gets_all_devices_back():
    limited = fleet.simulate(DEVICES // 4, down_s=30, connects_a_second=12)
    assert limited.back_s(100) <= 120
    assert (limited.lost, limited.out_of_order) == (0, 0)


# --- figures of a storm ---


def test_a_storm_counts_attempts_and_returns_since_the_server_is_up():
    attempts, returns = [1, 4, 9.0, 10.2, 10.4, 11.3], [10.2, 10.4, 11.3]
    storm = Storm(attempts, returns, 10, [0, 0, 0], [[], [], []])
    assert storm.refused == 3
    assert storm.peak == 2
    assert [round(storm.back_s(percent), 3) for percent in (50, 99, 100)] == [0.4, 1.3, 1.3]


def test_a_device_that_never_came_back_is_seen():
    storm = Storm([1, 2], [2], 1, [0, 0], [[], []])
    assert storm.back_s(50) == 1
    assert storm.back_s(100) is None


@pytest.mark.parametrize(
    "numbers, lost, twice, out_of_order",
    (
        ([0, 1, 2], 0, 0, 0),
        ([0, 2], 1, 0, 0),
        ([0, 1, 0, 1, 2], 0, 2, 0),
        ([0, 2, 1], 0, 0, 1),
    ),
)
def test_readings_are_counted(numbers, lost, twice, out_of_order):
    storm = Storm([], [], 0, [3], [numbers])
    assert (storm.lost, storm.twice, storm.out_of_order) == (lost, twice, out_of_order)


def test_a_low_limit_of_open_files_makes_the_fleet_smaller_and_says_so(monkeypatch):
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 512))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limits.append(both))
    assert fleet.allowed(100) == (100, "")
    assert limits == []
    devices, reason = fleet.allowed(1000)
    assert limits == [(512, 512)]
    assert devices == 412
    assert "only 512 open files" in reason
