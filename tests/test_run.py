# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What run.py starts, what it does when it is interrupted, and when nobody reads on.

A project of a few lines with our run.py stands for ours where an installation is to be watched.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import run
from helpers import wait_until

ROOT = Path(__file__).resolve().parent.parent
# What a shell leaves to a program in the foreground: one in the background would ignore Ctrl-C.
IN_FOREGROUND = """\
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import run
%s
sys.exit(run.main_or_quiet_end(sys.argv[1:]))
"""
WITHOUT_INSTALLING = "run.enter = lambda *files: None"
SLOW_PACKAGE = """\
import pathlib, time

def get_requires_for_build_wheel(settings=None):
    pathlib.Path(r"%s").touch()
    time.sleep(60)
"""

pytestmark = pytest.mark.timeout(120)
with_signals = pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups")


def start(folder, *arguments, change="", **options):
    """run.py of *folder*, as a shell would start it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        [sys.executable, "-c", IN_FOREGROUND % change, *map(str, arguments)],
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def press_ctrl_c(program):
    """The terminal sends SIGINT to the whole group; returns what stderr got."""
    os.killpg(program.pid, signal.SIGINT)
    return program.communicate(timeout=30)[1]


@pytest.fixture
def project(tmp_path):
    """A folder with our run.py, no requirements, and a demo that says hello."""
    shutil.copy(ROOT / "run.py", tmp_path)
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "demo.py").write_text("print('hello')\n", encoding="utf-8")
    return tmp_path


def require_slow_package(project):
    """A requirement that takes long to install; the path that is there when it is at it."""
    begun = project / "begun"
    slow = project / "slow"
    slow.mkdir()
    (slow / "backend.py").write_text(SLOW_PACKAGE % begun, encoding="utf-8")
    (slow / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        encoding="utf-8",
    )
    (project / "requirements.txt").write_text("%s\n" % slow, encoding="utf-8")
    return begun


def check_that_demo_runs(project):
    out, words = start(project, "demo").communicate(timeout=60)
    assert out.splitlines()[-1:] == ["hello"], words


# --- installing ----------------------------------------------------------------------------------


@with_signals
def test_ctrl_c_while_pip_installs_is_one_word_and_the_next_run_goes_on(project):
    begun = require_slow_package(project)
    program = start(project, "demo")
    wait_until(begun.exists, timeout=60)
    assert press_ctrl_c(program) == "Interrupted\n"
    assert program.returncode == 130
    assert list((project / ".venv").glob("ready-*")) == []
    (project / "requirements.txt").write_text("", encoding="utf-8")
    check_that_demo_runs(project)


@with_signals
def test_ctrl_c_while_the_environment_is_made_is_one_word_and_the_next_run_repairs_it(project):
    program = start(project, "demo")
    wait_until((project / ".venv" / "bin" / "python").exists, timeout=60)
    assert press_ctrl_c(program) == "Interrupted\n"
    assert program.returncode == 130
    check_that_demo_runs(project)


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """`.venv` of run.py is one without pip; a list of what run.py does to it."""
    monkeypatch.setattr(run, "VENV", tmp_path / "venv")
    inside = run.PYTHON.relative_to(ROOT / ".venv")
    monkeypatch.setattr(run, "PYTHON", tmp_path / "venv" / inside)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", run.VENV], check=True)
    done = []
    monkeypatch.setattr(run, "make_venv", lambda: done.append("made"))
    monkeypatch.setattr(run, "install", lambda files: done.append("installed"))
    return done


def put_pip(text):
    """A package named pip with this source."""
    (folder,) = run.VENV.glob("**/site-packages")
    package = folder / "pip" / "_internal" / "cli"
    package.mkdir(parents=True)
    (package / "main.py").write_text(text, encoding="utf-8")


def test_an_environment_without_pip_is_made_anew(environment):
    run.prepare(["requirements.txt"])
    assert environment == ["made", "installed"]


def test_an_environment_with_half_a_pip_is_made_anew(environment):
    put_pip("import pip._internal.what_was_not_copied\n")
    run.prepare(["requirements.txt"])
    assert environment == ["made", "installed"]


def test_an_environment_with_pip_is_kept_and_installed_into_once(environment):
    put_pip("")
    for _ in range(2):
        run.prepare(["requirements.txt"])
    assert environment == ["installed"]


def test_after_an_interrupted_installation_no_requirements_count_as_installed(
    environment, monkeypatch
):
    def install(files):
        raise KeyboardInterrupt

    put_pip("")
    run.prepare(["requirements.txt"])
    assert list(run.VENV.glob("ready-*"))
    monkeypatch.setattr(run, "install", install)
    with pytest.raises(KeyboardInterrupt):
        run.prepare(["requirements-bench.txt"])
    assert list(run.VENV.glob("ready-*")) == []


# --- which tests ---------------------------------------------------------------------------------


@pytest.fixture
def tools(monkeypatch):
    """What run.py has *started*; the exit *statuses* that are not 0 can be set."""
    statuses, started = {}, []

    def call(command, **_options):
        program = command[2:] if command[1] == "-m" else command[3:]
        started.append(tuple(program))
        return statuses.get(" ".join(program), 0)

    monkeypatch.setattr(run, "fetch_mosquitto", lambda: None)
    monkeypatch.setattr(run, "call", call)
    monkeypatch.setattr(run, "call_apart", call)
    return SimpleNamespace(statuses=statuses, started=started)


def test_test_runs_lint_all_tests_and_reports_their_coverage(tools, capsys):
    assert run.test([]) == 0
    assert ("mypy",) in tools.started
    assert tools.started[-2:] == [("coverage", "run", "-m", "pytest"), ("coverage", "report")]
    assert "about 10 minutes" in capsys.readouterr().out


@pytest.mark.parametrize("failed", ("mypy", "coverage run -m pytest", "coverage report"))
def test_test_fails_if_any_part_of_it_does_and_runs_the_others(tools, failed):
    tools.statuses[failed] = 1
    assert run.test([]) == 1
    assert tools.started[-1] == ("coverage", "report")


def test_test_with_arguments_is_pytest_alone(tools):
    tools.statuses["pytest -k rpc"] = 5
    assert run.test(["-k", "rpc"]) == 5
    assert tools.started == [("pytest", "-k", "rpc")]


def test_quick_leaves_out_the_slow_files_and_says_how_long_it_takes(tools, capsys):
    assert run.test(["--quick"]) == 0
    ((program, *ignored),) = tools.started
    assert program == "pytest"
    assert ignored == ["--ignore=tests/" + name for name in run.SLOW_TESTS]
    assert "about 2 minutes" in capsys.readouterr().out


@with_signals
def test_ctrl_c_right_when_a_program_has_ended_by_itself_is_no_error(monkeypatch):
    wait = subprocess.Popen.wait

    def wait_and_be_interrupted(program, timeout=None):
        wait(program, timeout)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", wait_and_be_interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.call_apart([sys.executable, "-c", "pass"])


# --- the end of a command ------------------------------------------------------------------------


@with_signals
def test_ctrl_c_while_pytest_runs_lets_it_tidy_up(tmp_path):
    begun, tidied = tmp_path / "begun", tmp_path / "tidied"
    source = tmp_path / "test_waits.py"
    source.write_text(
        "import pathlib, time\n\n"
        "def test_waits():\n"
        "    try:\n"
        "        pathlib.Path(r'%s').touch()\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        pathlib.Path(r'%s').touch()\n" % (begun, tidied),
        encoding="utf-8",
    )
    arguments = ("test", "-p", "no:cacheprovider", source)
    program = start(ROOT, *arguments, change=WITHOUT_INSTALLING)
    wait_until(begun.exists, timeout=60)
    assert press_ctrl_c(program) == "Interrupted\n"
    assert program.returncode == 130
    assert tidied.exists()


@with_signals
def test_ctrl_c_while_pytest_loads_is_one_word(tmp_path):
    begun = tmp_path / "begun"
    source = "import pathlib, time\npathlib.Path(r'%s').touch()\ntime.sleep(60)\n" % begun
    (tmp_path / "slow_plugin.py").write_text(source, encoding="utf-8")
    environment = "import os; os.environ['PYTHONPATH'] = r'%s'" % tmp_path
    change = "\n".join((WITHOUT_INSTALLING, environment))
    program = start(ROOT, "test", "-p", "slow_plugin", change=change)
    wait_until(begun.exists, timeout=60)
    assert press_ctrl_c(program) == "Interrupted\n"
    assert program.returncode == 130


@with_signals
def test_ctrl_c_in_the_demo_is_one_word():
    program = start(ROOT, "demo", change=WITHOUT_INSTALLING)
    assert program.stdout.readline().startswith("ThingsBoard stand-in on port")
    assert press_ctrl_c(program) == "Interrupted\n"
    assert program.returncode == 130


@with_signals
def test_the_demo_ends_quietly_when_its_reader_leaves():
    program = start(ROOT, "demo", change=WITHOUT_INSTALLING)
    program.stdout.readline()
    program.stdout.close()
    assert program.stderr.read() == ""
    assert program.wait(10) == 141


@with_signals
def test_output_that_nobody_reads_at_the_end_is_no_error_either(project):
    (project / "examples" / "demo.py").write_text(
        "import sys\nsys.stdin.read()\nprint('hello')\nsys.exit(0)\n", encoding="utf-8"
    )
    program = start(project, "demo", change=WITHOUT_INSTALLING, stdin=subprocess.PIPE)
    program.stdout.close()
    program.stdin.close()  # now it prints
    assert program.stderr.read() == ""
    assert program.wait(10) == 141


def test_a_broken_pipe_of_another_kind_is_told(project):
    (project / "examples" / "demo.py").write_text("raise BrokenPipeError\n", encoding="utf-8")
    program = start(project, "demo", change=WITHOUT_INSTALLING)
    assert "BrokenPipeError" in program.communicate(timeout=30)[1]
    assert program.returncode == 1
