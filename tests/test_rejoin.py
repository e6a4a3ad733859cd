# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The network is lost and comes back: who joins it again, when, and what is told meanwhile."""

import pytest

from fakes import Clock, MemoryServer
from faults.radios import AccessPoint, AirLiftRadio, EspressifRadio, PicoRadio, WiznetRadio
from world import World

NATIVE = (EspressifRadio, PicoRadio)
OUTAGE_S = 120


@pytest.fixture
def clock():
    with Clock() as running:
        yield running


@pytest.fixture
def router(monkeypatch):
    """The router, and its name and password in settings.toml."""
    monkeypatch.setenv("CIRCUITPY_WIFI_SSID", "home")
    monkeypatch.setenv("CIRCUITPY_WIFI_PASSWORD", "secret")
    return AccessPoint()


class Board(World):
    """A board, its router and its server. *told*: (seconds, state, reason)."""

    def __init__(self, clock, router, kind, **options):
        server = MemoryServer(clock)
        server.add_device("Device", token="TOKEN")
        self.told = []
        self.router = router
        self.radio = kind and kind(router)
        super().__init__(clock, server, radio=self.radio, **options)

    def _on_state(self, _client, _data, state, reason):
        super()._on_state(_client, _data, state, reason)
        self.told.append((self.clock.now_ms // 1000, state, reason))

    def go_online(self):
        self.client.connect(timeout=0)
        self.run_until_state("online")

    def cut(self):
        """The router is gone, and with it the connection."""
        self.router.is_up = False
        self.pool.socket_now.end(reset=True)

    def restart_router(self, seconds=OUTAGE_S):
        self.cut()
        self.run(seconds, ms=100)
        self.router.is_up = True

    def reasons(self):
        return [str(reason) for _, _, reason in self.told if reason]


@pytest.mark.parametrize("kind", NATIVE)
def test_a_board_joins_again_after_its_router_was_away(clock, router, kind):
    board = Board(clock, router, kind)
    board.go_online()
    board.restart_router()
    board.run_until_state("online", seconds=61)
    assert router.joined[-1] == ("home", "secret")


@pytest.mark.parametrize("kind", NATIVE)
def test_attempts_to_join_begin_after_5_s_and_have_growing_pauses(clock, router, kind):
    board = Board(clock, router, kind)
    board.go_online()
    lost_s = clock.now_ms / 1000
    joined_s = []
    router.join = lambda *_: joined_s.append(clock.now_ms / 1000 - lost_s) or 1 / 0
    board.cut()
    board.run(300, ms=100)
    assert 5 <= joined_s[0] < 7
    pauses = [after - before for before, after in zip(joined_s, joined_s[1:])]
    assert sorted(pauses[:6]) == pauses[:6] and pauses[0] < 4
    assert 30 < max(pauses) <= 61
    assert 6 < len(joined_s) < 16


def test_a_second_address_of_the_server_spares_no_pause_between_attempts_to_join(clock, router):
    board = Board(clock, router, PicoRadio)
    first = board.pool.getaddrinfo("server.test", 1883)
    board.pool.getaddrinfo = lambda *_: first * 2
    board.go_online()
    board.cut()
    board.run(20)
    assert 1 < len(router.joined) < 6


def test_an_attempt_to_join_is_announced_one_poll_before(clock, router):
    board = Board(clock, router, PicoRadio)
    board.go_online()
    board.cut()
    board.run_until(lambda: board.states()[-2:] == ["waiting", "connecting"], seconds=10)
    assert router.joined == []
    board.poll()
    assert router.joined == [("home", "secret")]


def test_what_joining_raises_is_the_reason_and_the_newer_one_replaces_the_older(clock, router):
    board = Board(clock, router, PicoRadio)
    board.go_online()
    board.cut()
    board.run_until(lambda: "No network" in str(board.client.last_error), seconds=10)
    assert "closed by the server" in board.reasons()[0]
    assert board.reasons()[-1] == "No network with that ssid"
    router.is_up, router.password = True, "new"
    board.run_until(lambda: "Authentication" in str(board.client.last_error), seconds=20)
    assert board.reasons()[-1] == "Authentication failure"


def test_the_reason_of_an_attempt_to_connect_is_not_told_of_one_to_join(clock, router):
    board = Board(clock, router, PicoRadio)
    board.pool.refuse = True
    with pytest.raises(OSError, match="no server is listening"):
        board.client.connect()
    router.is_up = False
    board.run(20)
    assert board.reasons()[-1] == "No network with that ssid"


def test_the_radio_that_is_down_is_told_before_the_5_s_are_over(clock, router):
    board = Board(clock, router, PicoRadio)
    board.go_online()
    board.cut()
    board.run(3)
    assert "radio" in str(board.client.last_error)


def test_a_radio_that_comes_back_by_itself_is_left_alone(clock, router):
    board = Board(clock, router, EspressifRadio)
    board.go_online()
    board.radio.is_weak = True
    board.pool.socket_now.end(reset=True)
    board.run(4)
    board.radio.is_weak = False
    board.run_until_state("online")
    assert router.joined == []


def test_a_radio_that_comes_back_in_a_long_pause_is_used_at_once(clock, router):
    board = Board(clock, router, EspressifRadio)
    board.go_online()
    board.cut()
    board.run(OUTAGE_S, ms=100)
    attempts = len(router.joined)
    router.is_up = True
    router.join, board.radio._is_joined = None, True
    board.run_until_state("online", seconds=2)
    assert attempts > 3


def test_connect_waits_for_the_network_and_raises_what_joining_raises(clock, router):
    board = Board(clock, router, PicoRadio)
    router.is_up = False
    with pytest.raises(ConnectionError, match="No network with that ssid"):
        board.client.connect()
    router.is_up = True
    assert board.client.connect() is True


@pytest.mark.parametrize("kind", NATIVE)
def test_false_joins_never(clock, router, kind):
    board = Board(clock, router, kind, rejoin=False)
    board.go_online()
    board.restart_router()
    board.run(70)
    assert (board.client.state, router.joined) == ("waiting", [])
    with pytest.raises(OSError, match="the radio is not connected"):
        board.client.connect()
    with pytest.raises(OSError, match="the radio is not connected"):
        board.client.connect()


def test_without_a_network_in_settings_toml_nothing_joins(clock, router, monkeypatch):
    monkeypatch.delenv("CIRCUITPY_WIFI_SSID")
    board = Board(clock, router, PicoRadio)
    board.go_online()
    board.restart_router()
    board.run(70)
    assert router.joined == []


def test_a_network_without_a_password_is_joined_without(clock, router, monkeypatch):
    monkeypatch.delenv("CIRCUITPY_WIFI_PASSWORD")
    board = Board(clock, router, PicoRadio)
    board.go_online()
    board.restart_router(10)
    board.run(30)
    assert router.joined[-1] == ("home", "")


@pytest.mark.parametrize("kind", (AirLiftRadio, WiznetRadio))
def test_by_default_another_radio_is_only_waited_for(clock, router, kind):
    board = Board(clock, router, kind)
    board.go_online()
    board.cut()
    board.run(OUTAGE_S, ms=100)
    assert (board.client.state, router.joined) == ("waiting", [])


def test_a_function_joins_for_an_airlift(clock, router):
    board = Board(
        clock, router, AirLiftRadio, rejoin=lambda: board.radio.connect_AP("home", "secret")
    )
    board.go_online()
    board.restart_router()
    board.run_until_state("online", seconds=61)


def test_a_cable_that_is_in_again_needs_no_function(clock, router):
    board = Board(clock, router, WiznetRadio)
    board.go_online()
    board.restart_router()
    board.run_until_state("online", seconds=61)


@pytest.mark.parametrize("kind", (*NATIVE, AirLiftRadio, WiznetRadio))
def test_a_function_is_called_instead(clock, router, kind):
    calls = []
    board = Board(clock, router, kind, rejoin=lambda: calls.append(clock.now_ms))
    board.go_online()
    board.cut()
    board.run(30, ms=100)
    assert len(calls) > 1
    assert router.joined == []
    assert "the radio is not connected" in board.reasons()[-1]


def test_an_airlift_that_does_not_answer_is_told_and_asked_again(clock, router):
    board = Board(clock, router, AirLiftRadio)
    board.go_online()
    board.radio.answers = False
    board.pool.socket_now.end(reset=True)
    board.run(30, ms=100)
    assert board.reasons()[-1] == "ESP32 not responding"
    board.radio.answers = True
    board.run_until_state("online", seconds=61)


def test_where_no_radio_can_be_asked_a_function_follows_an_attempt_that_failed(clock, router):
    calls = []

    def dial():
        calls.append(clock.now_ms)
        board.pool.refuse = not router.is_up

    board = Board(clock, router, None, rejoin=dial)
    board.go_online()
    assert calls == []
    board.pool.refuse = True
    board.cut()
    board.run(OUTAGE_S, ms=100)
    assert 5 < len(calls) < 10
    router.is_up = True
    board.run_until_state("online", seconds=61)


@pytest.mark.parametrize("failure", (KeyError("x"), MemoryError(), ValueError("no such modem")))
def test_whatever_the_function_raises_the_poll_goes_on(clock, router, failure):
    def dial():
        if not router.is_up:
            raise failure
        board.radio._is_joined = True

    board = Board(clock, router, PicoRadio, rejoin=dial)
    board.go_online()
    board.cut()
    board.run(20)
    assert board.client.last_error is failure
    router.is_up = True
    board.run_until_state("online", seconds=61)


@pytest.mark.parametrize("rejoin", (True, 5, "wifi"))
def test_what_can_not_be_called_is_refused_by_name(clock, router, rejoin):
    with pytest.raises(TypeError, match="rejoin"):
        Board(clock, router, PicoRadio, rejoin=rejoin)
