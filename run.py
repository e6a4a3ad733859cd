#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The demo and the tests with one command each, on any machine that has Python.

    python3 run.py demo [--seconds N]   the library at work, against a ThingsBoard stand-in
    python3 run.py test                 lint, all tests, coverage; about 10 minutes
    python3 run.py test --quick         pytest without the slow files: about 2 minutes
    python3 run.py test PYTEST-ARGS     pytest alone, with these arguments
    python3 run.py bench [names]        the benchmarks
    python3 run.py lint                 ruff, mypy and shape
    python3 run.py shape [files]        how large and how branched functions and classes are
    python3 run.py bundle [--help]      the files of a release from which circup installs

The first run makes `.venv` beside this file. MINIMQTT=7.8.0 in the environment picks a MiniMQTT.
"""

import hashlib
import importlib.util
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LIBRARY = "requirements.txt"
TOOLS = "requirements-test.txt"
IN_CI = os.environ.get("CI") == "true"
MINIMQTT = os.environ.get("MINIMQTT", "newest")
OLDEST_PYTHON = (3, 9)
# What `test --quick` leaves out. Each takes seconds: real time passes in it, other programs run, or
# there are very many examples; or it is about what only the tests need. `test --durations=50` shows
# where the time goes.
SLOW_TESTS = (
    "test_benchmarks.py",
    "test_circup.py",
    "test_complaints.py",
    "test_examples.py",
    "test_faults.py",
    "test_fleet.py",
    "test_link_sockets.py",
    "test_local_server.py",
    "test_local_server_payloads.py",
    "test_minimqtt_versions.py",
    "test_no_memory.py",
    "test_package.py",
    "test_programs.py",
    "test_properties.py",
    "test_run.py",
    "test_runtimes.py",
    "test_soak.py",
    "test_tools.py",
    "test_types.py",
)
INTERRUPTED = 128 + 2  # SIGINT, as a shell tells it
NOBODY_READS = 128 + 13  # SIGPIPE
TIDYING_S = 10  # for a program that was interrupted, then it is killed

# --- other programs: their exit statuses --------------------------------------------------------


def call(command, **options):
    """For a program that tidies up on Ctrl-C, which it gets from the terminal as we do."""
    program = subprocess.Popen(command, **options)
    try:
        return program.wait()
    except KeyboardInterrupt:
        try:
            program.wait(TIDYING_S)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            program.kill()
        raise


def call_apart(command, **options):
    """For a program that would answer Ctrl-C with a traceback: it gets none, we end it."""
    program = subprocess.Popen(
        command,
        start_new_session=True,  # Windows has another word for it
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        **options,
    )
    try:
        return program.wait()
    except KeyboardInterrupt:
        end_group(program)
        raise


def end_group(program):
    """End *program* and those that it has started; it may have ended by itself."""
    if program.poll() is not None:
        return
    if os.name == "nt":
        program.terminate()
    else:
        os.killpg(program.pid, signal.SIGTERM)
    program.wait()


# --- environment: .venv and what is in it -------------------------------------------------------


def enter(*files):
    """Go on inside `.venv`, in which the requirement *files* are installed."""
    prepare(files)
    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    command = [str(PYTHON), str(ROOT / "run.py"), *sys.argv[1:]]
    if os.name == "nt":  # execv returns to the shell at once there
        try:
            sys.exit(call(command))
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)  # the other one has told it
    sys.stdout.flush()
    os.execv(command[0], command)


def prepare(files):
    stamp = VENV / ("ready-" + fingerprint(files))
    if stamp.exists() and has_this_python():
        return
    print("Installing into", VENV, "(the first time, or because a requirement changed)", flush=True)
    for old in VENV.glob("ready-*"):
        old.unlink()  # from here on nothing is complete
    if not has_this_python(and_can="import pip._internal.cli.main"):
        make_venv()
    install(files)
    # Whoever has the tools has the library's own requirements too: no second installation.
    for count in range(1, len(files) + 1):
        (VENV / ("ready-" + fingerprint(files[:count]))).touch()


def fingerprint(files):
    digest = hashlib.sha256(repr((sys.version_info[:2], MINIMQTT)).encode())
    for name in files:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()[:16]


def has_this_python(and_can="pass"):
    """Whether `.venv` is there, of the Python that runs this file, and can execute *and_can*.

    One that was interrupted while it was made has a Python, and no pip or a part of it.
    """
    code = "import sys; %s; print(sys.version_info[:2])" % and_can
    try:
        answer = subprocess.run(
            [str(PYTHON), "-c", code], capture_output=True, text=True, check=False
        )
    except OSError:
        return False
    return answer.stdout.strip() == str(sys.version_info[:2])


def make_venv():
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        sys.exit(
            "This Python has no venv. Debian and Ubuntu: sudo apt-get install python3-venv; "
            "elsewhere: install the full Python of your system."
        )
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    if call_apart(command):
        sys.exit("Could not make %s. Is the disk full, or the folder not yours?" % VENV)


def install(files):
    command = [str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    for name in files:
        command += ["-r", str(ROOT / name)]
    if MINIMQTT != "newest":
        command.append("adafruit-circuitpython-minimqtt==" + MINIMQTT)
    if call_apart(command):
        sys.exit("pip could not install %s (its words are above)." % " and ".join(files))


def find_tool(name):
    """Path of a program, or None; Debian keeps daemons where only root's PATH leads."""
    folders = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/usr/local/sbin"
    return shutil.which(name, path=folders)


def fetch_mosquitto():
    """Install mosquitto where that needs no question; elsewhere its tests are skipped."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if find_tool("mosquitto") or not shutil.which("apt-get") or not (is_root or IN_CI):
        return
    print("Installing mosquitto", flush=True)
    apt = [] if is_root else ["sudo", "-n"]
    apt += ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    install = [*apt, "install", "-y", "--no-install-recommends", "mosquitto"]
    nowhere = subprocess.DEVNULL
    if call([*apt, "update"], stdout=nowhere) or call(install, stdout=nowhere):
        print("apt-get could not install mosquitto (its words are above).", flush=True)


# --- commands: each returns an exit status ------------------------------------------------------


def call_tool(*arguments):
    return call_apart([sys.executable, "-m", *arguments], cwd=str(ROOT))


# As ``python -m`` does it; pytest is silent on Ctrl-C only once it has loaded all that it needs.
QUIETLY = """\
import runpy, sys
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
except KeyboardInterrupt:
    sys.exit(2)  # as pytest when it was interrupted
"""


def call_pytest(*arguments, under=()):
    """*under*: the module that runs it, and itself takes ``-m``."""
    program = (*under, "-m", "pytest") if under else ("pytest",)
    return call([sys.executable, "-c", QUIETLY, *program, *arguments], cwd=str(ROOT))


def lint(arguments):
    """Run every checker, also when one before has failed: one run shows all there is to mend."""
    if arguments:
        return usage("lint takes no arguments")
    checkers = (
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("tools.shape",),
    )
    failed = [" ".join(checker) for checker in checkers if call_tool(*checker)]
    if failed:
        print("FAILED:", ", ".join(failed), file=sys.stderr, flush=True)
    return 1 if failed else 0


def test(arguments):
    fetch_mosquitto()
    if arguments == ["--quick"]:
        print("The tests without the slow files: about 2 minutes", flush=True)
        return call_pytest(*("--ignore=tests/" + name for name in SLOW_TESTS))
    if arguments:
        return call_pytest(*arguments)
    print("Lint, all tests and their coverage: about 10 minutes", flush=True)
    lint_status = lint([])
    status = call_pytest(under=("coverage", "run"))  # late, so that its summary is near the end
    coverage_status = call_tool("coverage", "report")
    if lint_status:
        print("lint FAILED, see the top of this output", file=sys.stderr, flush=True)
    return status or coverage_status or lint_status


def bench(arguments):
    return run_script("tests/benchmarks/bench.py", arguments)


def demo(arguments):
    return run_script("examples/demo.py", arguments)


def bundle(arguments):
    return run_script("tools/bundle.py", arguments)


def shape(arguments):
    return run_script("tools/shape.py", arguments)


def run_script(name, arguments):
    """Run a script of ours; imports find the library and the examples, in its children too."""
    paths = [str(ROOT), str(ROOT / "examples"), str(ROOT / "tests")]
    sys.path[:0] = paths
    inherited = [path for path in (os.environ.get("PYTHONPATH"),) if path]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths + inherited)
    sys.argv = [str(ROOT / name), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")
    return 0


COMMANDS = {  # name: what does it, what it needs
    "demo": (demo, (LIBRARY,)),
    "test": (test, (LIBRARY, TOOLS)),
    "bench": (bench, (LIBRARY, TOOLS)),
    "lint": (lint, (LIBRARY, TOOLS)),
    "bundle": (bundle, ()),
    "shape": (shape, ()),
}


def usage(complaint=None):
    text = re.sub(r"``?", "", __doc__)
    print(text if complaint is None else complaint + "\n\n" + text, file=sys.stderr)
    return 2


def main(arguments):
    if sys.version_info < OLDEST_PYTHON:
        return "Python %d.%d or newer is needed, this is %s" % (*OLDEST_PYTHON, sys.version)
    if arguments and arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        return usage("unknown command: " + arguments[0] if arguments else None)
    command, files = COMMANDS[arguments[0]]
    if files:
        enter(*files)
    return command(arguments[1:])


def main_or_quiet_end(arguments):
    """Ctrl-C, and a reader that leaves (``| head``), are no errors: no traceback."""
    try:
        try:
            return main(arguments)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if somebody_reads():  # then it was another pipe, or a socket
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed once more at exit
        return NOBODY_READS


def somebody_reads():
    try:
        print(flush=True)
    except BrokenPipeError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main_or_quiet_end(sys.argv[1:]))
