# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Each benchmark works, and what does not depend on the machine keeps its budget, also in small."""

import pytest

from benchmarks import (
    bench,
    drivers,
    environment,
    interpreters,
    memory,
    polls,
    programs,
    rig,
    speed,
)
from benchmarks.tables import (
    LESS,
    Column,
    Comparison,
    Group,
    LeftOut,
    Row,
    Table,
    above,
    at_most,
    below,
    exactly,
)
from helpers import IN_CI, do_without

ALL = {**bench.BENCHMARKS, **bench.ON_REQUEST}

SMALL = {
    "idle": {"polls": 500, "peers": [drivers.OURS, drivers.OURS_ON_MICROPYTHON]},
    "animation": {"seconds": 0.2, "peers": [drivers.NOBODY, drivers.OURS]},
    "longest_call": {"seconds": 0.3, "runs": 1, "peer_timeout_s": 0.2},
    "notice": {"runs": 1, "silences": 1, "keep_alive": 1, "peers": [drivers.OURS]},
    "rpc_round_trip": {"seconds": 0.5, "peers": [drivers.OURS, drivers.MINIMQTT]},
    "rpc_burst": {},
    "cuts": {"messages": 500, "cuts": 10, "runs": 1, "peers": [drivers.OURS]},
    "outage": {"readings": 10, "interval_s": 0.05},
    "programs": {
        "readings": 40,
        "pause_s": 0.001,
        "rest_s": 0,
        "burst": 70,
        "listed": 5,
        "outage_s": 0.3,
        "settle_s": 2,
        "peers": [drivers.OURS, drivers.NOBODY],
    },
    "rate": {
        "seconds": 0.3,
        "links": [(1, 80), (0, 0)],
        "peers": [drivers.OURS, drivers.MINIMQTT],
    },
    "first_telemetry": {"runs": 1, "peers": [drivers.OURS_QUEUED, drivers.OURS]},
    "wire": {"messages": 5, "peers": [drivers.OURS, drivers.OURS_COMPACT]},
    "reconnects": {"times": 200},
    "long_run": {"messages": 500, "polls": 500},
    "fleet": {"devices": 100, "down_s": 2, "steady_s": 1, "simulated": 100, "outages_s": (5,)},
    "deep_sleep": {"link_ms": 60},
    "heap": {"clients": ["ours", "MiniMQTT"], "may_install": IN_CI},
    "memory": {"sections": 1, "messages": 1000, "heaps": (".mpy",), "may_install": IN_CI},
    "pystack": {"may_install": IN_CI},
    "memory_by_function": {"limit": 2, "may_install": IN_CI},
}


# Budgets that the library does not keep yet: how their rows begin.
NOT_YET = {
    "programs": (
        "never polls, cut",  # it ends before the pause behind the loss is over
        "ours: lost in silence",
    )
}


def broken(table):
    """The rows that break their budget whatever the machine is doing."""
    rows = [row for row in table.broken if row.budget.is_enforced and not row.is_of_time]
    return [" ".join(row.cells([])) for row in rows]


@pytest.mark.parametrize("name", ALL)
def test_benchmark_works_and_keeps_its_budgets(name):
    table = ALL[name](**SMALL[name])
    if isinstance(table, LeftOut):
        do_without(table.reason)
    print(table.text())
    not_yet = [line for line in broken(table) if line.startswith(NOT_YET.get(name, ()))]
    assert [line for line in broken(table) if line not in not_yet] == []
    assert bool(not_yet) is (name in NOT_YET), "all are kept now: take it out of NOT_YET"
    if isinstance(table, Comparison):
        assert [value for value in table.answers["ours"].values() if isinstance(value, str)] == []
    else:
        assert table.rows


def test_a_packet_that_leaves_in_pieces_breaks_the_budget_of_the_wire(monkeypatch):
    send = rig.CountingSocket.send
    monkeypatch.setattr(rig.CountingSocket, "send", lambda made, data: send(made, data[:20]))
    assert [line.split(":")[0] for line in broken(speed.wire(2, [drivers.OURS]))] == [
        "telemetry",
        "telemetry",
        "connect, subscribe, telemetry",
        "connect, subscribe, telemetry",
    ]


def test_bytes_that_the_library_keeps_are_counted_and_no_others(server, device):
    others = []
    with rig.online(server.port) as client, rig.memory_trace() as held_bytes:
        before = held_bytes()
        others.append(bytearray(50000))
        client.send_attributes({"a": 1})
        rig.settle(client)
        assert held_bytes() - before < 2000
        for count in range(100):
            client.subscribe_to_attribute("key %d" % count, print)
        assert held_bytes() - before > 5000


def on_a_board(rows):
    """A table of the *rows* that the benchmark of memory makes."""
    table = memory.on_a_board(lambda bench, _: Table([*rows(bench, bench.library(".mpy"))]), IN_CI)
    if isinstance(table, LeftOut):
        do_without(table.reason)
    return table


def test_a_poll_that_allocates_on_a_board_breaks_its_budget(monkeypatch):
    monkeypatch.setattr(memory, "_IDLE", memory._IDLE.replace("client.", "[0], client."))
    table = on_a_board(memory.client_rows)
    assert [line.split(" by ")[0] for line in broken(table)] == ["allocated"]


def test_what_messages_leave_on_the_heap_breaks_the_budget(monkeypatch):
    leak = "\nclient.on_publish = lambda *_: client.stats.update({client.stats['sent']: 0})"
    monkeypatch.setattr(memory, "_START", memory._START + leak)
    table = on_a_board(lambda *bench: memory.endurance_rows(*bench, messages=300))
    assert [line.split(" by ")[0] for line in broken(table)] == ["left"]


def test_a_message_that_never_arrives_breaks_the_budget(monkeypatch):
    drop = "\nserver.call = lambda number, body: None"
    monkeypatch.setattr(memory, "_START", memory._START + drop)
    table = on_a_board(lambda *bench: memory.endurance_rows(*bench, messages=200))
    assert [line.split(" or ")[0] for line in broken(table)] == ["- of which not acknowledged"]


def test_the_smallest_heap_is_found():
    assert interpreters.smallest_heap(lambda kilobytes: kilobytes >= 77) == 77
    with pytest.raises(ValueError):
        interpreters.smallest_heap(lambda kilobytes: False)


@pytest.mark.parametrize("kilobytes, fits", [(20, False), (60, True)])
def test_a_heap_that_is_too_small_is_told_apart(kilobytes, fits, tmp_path):
    board, unix = interpreters.Board.find(IN_CI), interpreters.Unix.find()
    if board is None:
        do_without(interpreters.Board.what_is_missing())
    library = interpreters.make_library(tmp_path, ".py", {})
    steps = ["taken = bytearray(30000)"]
    assert board.fits(library, steps, kilobytes) is fits
    assert unix is None or unix.fits(library, steps, kilobytes) is fits


def test_a_call_that_blocks_is_seen():
    class Client:
        stats = {"connects": 0}

        def sleepy(self):
            polls.time.sleep(0.06)

        def connecting(self):
            self.stats["connects"] += 1
            polls.time.sleep(0.09)

    client = Client()
    calls = polls.Calls(client)
    calls.call(client.sleepy)
    calls.call(client.connecting)
    assert calls.longest_name == "sleepy"
    assert calls.longest_ms >= 60
    assert calls.attempt_ms >= 90


# --- programs ---

TAKEN = [[0, 1000], [1, 1010], [2, 1020], [3, 1030]]  # number, time


def account(taken=TAKEN, told=(), longest=0.5):
    return {"taken": list(taken), "told": list(told), "longest": longest}


def test_what_is_neither_stored_nor_told_is_lost_in_silence():
    seen = programs.balance(account(told=[2]), [(1000, 0), (1010, 1)])
    assert seen["handed over"] == 4
    assert seen["stored"] == 2
    assert seen["told as lost"] == 1
    assert seen["lost in silence"] == 1


def test_what_was_told_as_lost_and_is_stored_is_stored():
    seen = programs.balance(account(told=[0]), [(1000, 0)])
    assert (seen["stored"], seen["told as lost"], seen["lost in silence"]) == (1, 0, 3)


def test_a_reading_is_stored_once_and_its_worst_time_counts():
    seen = programs.balance(account(), [(1001, 0), (1700, 0), (900, 3)])
    assert (seen["stored"], seen["worst time"]) == (2, 700)


def test_what_the_program_did_not_send_counts_for_nothing():
    seen = programs.balance(account(taken=[]), [(1000, 0)])
    assert (seen["stored"], seen["lost in silence"], seen["worst time"]) == (0, 0, None)


def test_who_keeps_nothing_loses_everything_in_silence():
    small = {**SMALL["programs"], "readings": 2, "peers": [drivers.NOBODY]}
    table = programs.programs(**{**small, "outage_s": 0.1, "settle_s": 0})
    for part in table.parts:
        seen = part.answers["no client"]
        assert seen["lost in silence"] == seen["handed over"] > 0
    assert table.rows == []  # a budget is of ours alone


# --- budgets and tables ---


@pytest.mark.parametrize(
    "budget, good, bad",
    [(below(5), 4, 5), (at_most(5), 5, 6), (above(5), 6, 5), (exactly(5), 5, 4)],
)
def test_a_budget_is_met_or_broken(budget, good, bad):
    assert not Row("x", good, "B", budget).is_broken
    assert Row("x", bad, "B", budget).is_broken


@pytest.mark.parametrize(
    "unit, is_of_time", [("us", True), ("ms", True), ("/s", True), ("B", False), ("", False)]
)
def test_only_bytes_counts_and_ratios_fail_the_tests(unit, is_of_time):
    assert (broken(Table([Row("x", 6, unit, at_most(5))])) == []) is is_of_time


def test_a_table_is_aligned_markdown_without_empty_columns():
    rows = [
        Row("short", 1234567, "B", at_most(5)),
        Row("rather long", 0.125, "ms", beside={"median": 10.04}),
        Row("yes or no", True),
    ]
    assert Table(rows, "How it was measured.").text().splitlines() == [
        "|             |        ours | budget | met |  median |",
        "|-------------|------------:|-------:|----:|--------:|",
        "| short       | 1,234,567 B | <= 5 B |  NO |         |",
        "| rather long |     0.12 ms |        |     | 10.0 ms |",
        "| yes or no   |         yes |        |     |         |",
        "",
        "How it was measured.",
    ]


def group():
    columns = [Column("lost", budget=exactly(0))]
    parts = [
        Comparison("first", "What it does", LESS, columns, {"ours": {"lost": 0}}),
        Comparison("second", "What else", LESS, columns, {"ours": {"lost": 2}}),
    ]
    rows = [Row("lost in all", 2, "", exactly(0))]
    return Group(parts, "How it was measured.", rows=rows, left_out={"other": "no network"})


def test_a_group_shows_each_comparison_under_its_name():
    assert group().text().splitlines() == [
        "### first: What it does",
        "",
        "|                |   lost |",
        "|----------------|-------:|",
        "| ours           |      0 |",
        "| budget of ours | 0: yes |",
        "",
        "### second: What else",
        "",
        "|                |  lost |",
        "|----------------|------:|",
        "| ours           |     2 |",
        "| budget of ours | 0: NO |",
        "",
        "|             | ours | budget | met |",
        "|-------------|-----:|-------:|----:|",
        "| lost in all |    2 |      0 |  NO |",
        "",
        "How it was measured.",
        "",
        "other is left out: no network.",
    ]


def test_a_budget_of_a_group_is_missed_under_the_name_of_its_comparison():
    assert [row.what for row in group().broken] == ["lost in all", "second: lost"]


def test_percentiles_are_values_that_were_measured():
    values = list(range(100, 0, -1))
    assert [rig.percentile(values, percent) for percent in (0, 50, 99, 100)] == [1, 50, 99, 100]


# --- the command ---


@pytest.fixture
def asked(monkeypatch):
    """Two benchmarks, "first" and "second", instead of the real ones: what they were asked."""
    names = []

    def first(size=1):
        """What is first?"""
        names.append(("first", size))
        return Table([Row("bytes", 6, "B", below(5, enforced=False))])

    def second():
        """What is second?"""
        names.append(("second",))
        return Table([Row("bytes", 6, "B", at_most(5))])

    monkeypatch.setattr(bench, "BENCHMARKS", {"first": first, "second": second})
    monkeypatch.setattr(bench, "ON_REQUEST", {})
    monkeypatch.setattr(bench, "QUICK", {"first": {"size": 0}})
    return names


def test_bench_runs_all_and_fails_if_a_budget_is_missed(asked, capsys):
    assert bench.main([]) == 1
    assert asked == [("first", 1), ("second",)]
    printed = capsys.readouterr().out
    assert "## second: What is second?" in printed
    assert printed.endswith("Budgets missed: second, bytes\nMissed, not enforced: first, bytes\n")


def test_who_is_left_out_stands_in_the_heading_and_below_how_to_bring_it(
    asked, monkeypatch, tmp_path, capsys
):
    def third():
        """What is third?"""
        return Table(
            [Row("bytes", 6, "B")], left_out={"other": "OTHER=FOLDER names one", "two": "x"}
        )

    monkeypatch.setattr(bench, "BENCHMARKS", {"third": third})
    monkeypatch.setattr(bench, "PICTURES", tmp_path)
    bench.main(["--write"])
    printed = capsys.readouterr().out
    assert "## third: What is third? (without other, two)\n" in printed
    assert "\n\nother is left out: OTHER=FOLDER names one.\n\ntwo is left out: x.\n" in printed
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "\n## What is third? (without other, two)\n" in page


def test_a_budget_that_is_not_enforced_is_shown_but_does_not_fail(asked, capsys):
    assert bench.main(["first"]) == 0
    assert asked == [("first", 1)]
    assert "no (not enforced)" in capsys.readouterr().out


def test_bench_says_when_and_on_what(asked, capsys):
    bench.main(["first"])
    head = capsys.readouterr().out.split("\n\n")[0]
    assert [line.split(":")[0] for line in head.splitlines()] == [
        "date",
        "machine",
        "Python",
        "ours",
        "MiniMQTT",
        "peers",
    ]


def test_quick_makes_sizes_smaller(asked):
    bench.main(["--quick", "first"])
    assert asked == [("first", 0)]


def test_pictures_are_drawn_when_asked_for(asked, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(bench, "PICTURES", tmp_path / "pictures")
    monkeypatch.setattr(Table, "draw", staticmethod(drawn.append))
    bench.main(["first"])
    assert drawn == []
    bench.main(["first", "--write"])
    assert drawn == [tmp_path / "pictures"]
    assert drawn[0].is_dir()


def test_a_picture_that_nothing_can_draw_is_no_failure(asked, monkeypatch, tmp_path, capsys):
    def draw(_folder):
        raise environment.Missing("no picture: no network")

    monkeypatch.setattr(bench, "PICTURES", tmp_path)
    monkeypatch.setattr(Table, "draw", staticmethod(draw))
    assert bench.main(["first", "--write"]) == 0
    assert "no picture: no network" in capsys.readouterr().out


def test_an_unknown_name_is_refused_with_those_that_there_are(asked, capsys):
    with pytest.raises(SystemExit):
        bench.main(["third"])
    assert "'third' is none of first, second" in capsys.readouterr().err
    assert asked == []
