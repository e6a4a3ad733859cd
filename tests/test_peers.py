# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""How the benchmarks compare with other clients: the processes, the tables, the pictures."""

import re
import time

import pytest

from benchmarks import bench, drivers, environment, pictures
from benchmarks.drivers import Driver, Failed, Peer
from benchmarks.tables import LESS, Column, Comparison, at_most, below
from helpers import IN_CI, do_without

OURS, OTHER = Peer("ours", "ours"), Peer("other", "other")
VOCABULARY = """
import sys, time
sys.path.insert(0, %r)
from vocabulary import Client, run

class Made(Client):
    def open(self, port, keep_alive, ca, serves, variant):
        self.count = 0
"""


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Write the program of OTHER: the body of its client's poll(), and other *methods*."""
    text = VOCABULARY % str(drivers._PROGRAMS)
    monkeypatch.setattr(drivers, "_PROGRAMS", tmp_path)

    def write(poll, before="", methods=""):
        lines = [before, text, "    def poll(self):", "        " + poll]
        lines += ["    " + methods, "run(Made())"]
        (tmp_path / "other.py").write_text("\n".join(lines), encoding="utf-8")

    return write


# --- processes ---


def test_a_client_is_asked_and_answers(program):
    program("time.sleep(0.001)")
    with Driver(OTHER) as driver:
        driver.open(0)
        seen = driver.do("idle", calls=5, seconds=5)
    assert 1000 <= seen["median"] <= seen["p99"]


def test_what_a_client_prints_is_no_answer(program):
    program("print('=', 'callback')")
    with Driver(OTHER) as driver:
        driver.do("open", port=0)
        assert set(driver.do("idle", calls=5, seconds=5)) == {"median", "p99"}


def test_a_client_that_hangs_is_ended_and_shown(program):
    program("time.sleep(60)")
    started = time.monotonic()
    with Driver(OTHER) as driver, pytest.raises(Failed, match=r"no answer in 0\.3 s"):
        driver.do("open", port=0)
        driver.do("idle", calls=1, seconds=0.1, timeout=0.3)
    assert time.monotonic() - started < 10
    assert driver._process.poll() is not None


def test_a_client_that_raises_is_shown_and_can_be_asked_again(program):
    program("raise OSError('on purpose')")
    with Driver(OTHER) as driver:
        driver.do("open", port=0)
        with pytest.raises(Failed, match="OSError: on purpose"):
            driver.do("idle", calls=1, seconds=1)
        assert driver.do("notice", seconds=1) == {"noticed": True}


def test_the_last_words_of_a_program_that_ends_are_shown(program):
    program("pass", before="import no_such_module")
    with pytest.raises(Failed, match="No module named 'no_such_module'"), Driver(OTHER):
        pass


def test_a_peer_that_is_not_there_is_left_out_and_the_others_are_asked(program, monkeypatch):
    def folder(name):
        raise environment.Missing("no network")

    program("pass")
    monkeypatch.setattr(environment, "folder", folder)
    absent = Peer("absent", "other", ("some-package",))
    answers, left_out = drivers.ask([absent, OTHER], lambda driver: driver.do("name"))
    assert list(answers) == ["other"]
    assert left_out == {"absent": "no network"}


def ask_for_its_name(driver):
    return driver.do("name")


def test_clients_can_be_asked_in_processes_of_their_own():
    answers, left_out = drivers.ask([drivers.NOBODY], ask_for_its_name, apart=True)
    assert answers["no client"]["python"].startswith("cpython 3.")
    assert left_out == {}


def test_a_program_ends_by_itself_behind_its_last_line(program):
    program("pass")
    with Driver(OTHER) as driver:
        assert driver.end(5)


def test_a_program_that_hangs_does_not_end_by_itself(program):
    program(
        "pass",
        before="import threading, time; threading.Thread(target=time.sleep, args=(9,)).start()",
    )
    with Driver(OTHER) as driver:
        assert not driver.end(0.2)


# --- habits: programs that use a client as people do ---


def test_a_call_that_raises_has_told_that_its_readings_are_lost(program):
    program("pass", methods="def telemetry(self, data): raise ValueError(data)")
    with Driver(OTHER) as driver:
        driver.do("begin", port=0)
        driver.do("send_singly", first=0, count=2)
        driver.do("send_list", count=4)
        seen = driver.do("account")
    assert seen["told"] == [0, 1, 2, 3]
    assert [number for number, _ in seen["taken"]] == [0, 1, 0, 1, 2, 3]


def test_an_account_has_the_longest_call_and_the_times_of_the_readings(program):
    program("pass", methods="def telemetry(self, data): time.sleep(0.03 * (data['n'] == 1))")
    with Driver(OTHER) as driver:
        driver.do("begin", port=0)
        before = time.time() * 1000
        driver.do("send_singly", first=0, count=3)
        after = time.time() * 1000
        seen = driver.do("account")
    assert seen["longest"] >= 30
    times = [ms for _, ms in seen["taken"]]
    assert before - 1 <= times[0] <= times[1] <= times[2] - 29
    assert times[2] <= after + 1


def test_a_main_loop_that_waits_in_its_polls_takes_fewer_readings(program):
    program("time.sleep(0.2)")
    with Driver(OTHER) as driver:
        driver.do("begin", port=0)
        driver.do("sample", seconds=0.5, every_s=0.01)
        assert len(driver.do("account")["taken"]) == 3


def test_a_main_loop_that_was_late_does_not_make_up_for_it(program):
    program("time.sleep(0.3 * (not self.count)); self.count = 1")
    with Driver(OTHER) as driver:
        driver.do("begin", port=0)
        driver.do("sample", seconds=0.5, every_s=0.05)
        assert 2 <= len(driver.do("account")["taken"]) <= 6  # of 10


def test_a_main_loop_repairs_what_raises(program):
    program(
        "if not self.count: raise OSError('gone')",
        methods="def repair(self): self.count += 1; self.told.add(self.count)",
    )
    with Driver(OTHER) as driver:
        driver.do("begin", port=0)
        driver.do("poll_for", seconds=0.05)
        assert driver.do("account")["told"] == [1]


def test_a_folder_in_the_environment_stands_in_for_what_cannot_be_installed(monkeypatch):
    monkeypatch.setenv("UMQTT", "/some/folder")
    assert drivers.folder_of("umqtt") == "/some/folder"


def test_versions_are_those_of_the_requirements():
    versions = environment.versions()
    assert versions["paho-mqtt"].startswith("2.")
    assert re.fullmatch("[0-9a-f]{10}", versions["thingsboard-circuitpython-client-sdk"])
    assert "matplotlib" not in versions


# --- tables ---


def comparison():
    answers = {
        "ours": {"median": 1.5, "segments": 1},
        "other": {"median": 1e6, "segments": "QoS 0 alone"},
        "third": {None: "no answer in 10 s"},
    }
    columns = [Column("median", "us", below(10)), Column("segments", "", at_most(0), False)]
    return Comparison("made", "Made up", LESS, columns, answers, "How it was measured.")


def test_clients_are_compared_line_by_line():
    assert comparison().text().splitlines() == [
        "|                |            median |    segments |",
        "|----------------|------------------:|------------:|",
        "| ours           |           1.50 us |           1 |",
        "| other          |      1,000,000 us | QoS 0 alone |",
        "| third          | no answer in 10 s |             |",
        "| budget of ours |      < 10 us: yes |    <= 0: NO |",
        "",
        "How it was measured.",
    ]


def test_only_our_own_figures_have_a_budget():
    assert [row.what for row in comparison().broken] == ["segments"]


def test_words_instead_of_our_figure_break_its_budget():
    made = comparison()
    made.answers["ours"] = {None: "no answer in 10 s"}
    assert [row.what for row in made.broken] == ["median", "segments"]


def test_the_bars_are_the_figures_that_are_printed(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(pictures, "bars", lambda path, title, rows, better: drawn.extend(rows))
    comparison().draw(tmp_path)
    assert [(bar.name, bar.value, bar.is_ours) for bar in drawn] == [
        ("ours", 1.5, True),
        ("other", 1e6, False),
        ("third", "no answer in 10 s", False),
    ]


# --- pictures ---


@pytest.mark.parametrize(
    "values, is_log", [([1, 29], False), ([1, 30], True), ([0, 5, 6], False), ([], False)]
)
def test_a_logarithmic_scale_is_for_values_that_span_decades(values, is_log):
    assert pictures.spans_decades(values) is is_log


def test_a_picture_is_small_says_its_figures_as_text_and_is_the_same_again(tmp_path):
    try:
        environment.folder("matplotlib", may_install=IN_CI)
    except environment.Missing as missing:
        do_without(str(missing))
    texts = []
    for _ in range(2):
        comparison().draw(tmp_path)
        texts.append((tmp_path / "made.svg").read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    assert "<dc:date>" not in texts[0]
    for words in ("Made up: less is better", "1.50 us", "1,000,000 us", "no answer in 10 s"):
        assert ">%s</text>" % words in texts[0]
    assert len(texts[0]) < 40000


@pytest.mark.parametrize(
    "cell, words",
    [
        (pictures.Cell("bursts", "ours", 1234, True), "1,234"),
        (pictures.Cell("bursts", "other", 0), "0"),
        (pictures.Cell("bursts", "other", "no answer"), "-"),
    ],
)
def test_a_grid_says_each_number_under_its_names(cell, words, tmp_path):
    try:
        environment.folder("matplotlib", may_install=IN_CI)
    except environment.Missing as missing:
        do_without(str(missing))
    pictures.cells(tmp_path / "made.svg", "Made up", [cell])
    text = (tmp_path / "made.svg").read_text(encoding="utf-8")
    for each in ("Made up: less is better", "bursts", cell.column, words):
        assert ">%s</text>" % each in text


# --- the page ---


def test_the_page_has_what_was_printed_and_the_pictures(monkeypatch, tmp_path, capsys):
    def made():
        """What is made up?"""
        return comparison()

    monkeypatch.setattr(bench, "BENCHMARKS", {"made": made})
    monkeypatch.setattr(bench, "PICTURES", tmp_path)
    monkeypatch.setattr(pictures, "bars", lambda *_, **__: None)
    bench.main(["--write"])
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "## What is made up?\n\n![What is made up?](made.svg)\n\n|" in page
    assert comparison().text() in page
    assert comparison().text() in capsys.readouterr().out


def test_a_benchmark_that_raises_fails_the_run_and_the_others_are_asked(monkeypatch, capsys):
    def broken():
        """What is broken?"""
        raise ValueError("on purpose")

    def made():
        """What is made up?"""
        return comparison()

    monkeypatch.setattr(bench, "BENCHMARKS", {"broken": broken, "made": made})
    assert bench.main([]) == 1
    printed = capsys.readouterr()
    assert "Left out: it failed." in printed.out
    assert "## made: What is made up?" in printed.out
    assert "Budgets missed: broken; made, segments" in printed.out
    assert "ValueError: on purpose" in printed.err


def test_a_part_of_the_benchmarks_does_not_replace_the_page(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "BENCHMARKS", {"made": comparison})
    monkeypatch.setattr(bench, "PICTURES", tmp_path)
    monkeypatch.setattr(pictures, "bars", lambda *_, **__: None)
    monkeypatch.setattr(bench.inspect, "getdoc", lambda _function: "What is made up?")
    bench.main(["--write", "made"])
    assert not (tmp_path / "README.md").exists()
