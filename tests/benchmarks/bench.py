# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The benchmarks, started by `python3 run.py bench`.

Prints a table for each, as Markdown. The exit status is 1 if a budget is not met.
"""

import argparse
import importlib.metadata
import inspect
import os
import platform
import sys
import time
import traceback
from pathlib import Path

import tb_device_mqtt
from benchmarks import (
    deep_sleep,
    delivery,
    drivers,
    endurance,
    environment,
    fleet,
    heap,
    memory,
    polls,
    programs,
    pystack,
    rpc,
    speed,
)
from benchmarks.tables import LeftOut

BENCHMARKS = {
    function.__name__: function
    for function in (
        polls.idle,
        polls.animation,
        polls.longest_call,
        polls.notice,
        rpc.rpc_round_trip,
        rpc.rpc_burst,
        delivery.cuts,
        delivery.outage,
        programs.programs,
        speed.rate,
        speed.first_telemetry,
        speed.wire,
        endurance.reconnects,
        endurance.long_run,
        fleet.fleet,
        deep_sleep.deep_sleep,
        heap.heap,
        memory.memory,
        pystack.pystack,
    )
}

ON_REQUEST = {  # run by name alone: for whoever makes the module smaller
    "memory_by_function": memory.memory_by_function,
}

_PAGE = """<!--
SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
SPDX-License-Identifier: MIT
-->

# Benchmarks

What `python3 run.py bench --write` printed. Every client runs in a process of its own, against
the same stand-in of ThingsBoard, in the same run; `tests/benchmarks/peers` has how each is used.
A budget is what this library has to keep.

```text
%s
```
"""

QUICK = {"outage": {"interval_s": 0.1}}  # sizes that --quick sets
PICTURES = Path(__file__).resolve().parent.parent.parent / "docs" / "benchmarks"


def main(arguments):
    options = _parse(arguments)
    machine = _machine()
    print(machine + "\n", flush=True)
    sections = []
    missed = {True: [], False: []}  # whether enforced: names
    for name in options.names or BENCHMARKS:
        benchmark = BENCHMARKS.get(name) or ON_REQUEST[name]
        question = inspect.getdoc(benchmark).splitlines()[0]
        print("Measuring %s" % name, file=sys.stderr, flush=True)
        try:
            table = benchmark(**(QUICK.get(name, {}) if options.quick else {}))
        except Exception:  # the others are to be asked nevertheless
            traceback.print_exc()
            table = LeftOut("it failed")
            missed[True].append(name)
        heading = table.heading(question)
        print("## %s: %s\n\n%s\n" % (name, heading, table.text()), flush=True)
        is_drawn = options.write and table.draw is not None and _write_picture(table)
        picture = "![%s](%s.svg)\n\n" % (question, name) if is_drawn else ""
        sections.append("## %s\n\n%s%s\n" % (heading, picture, table.text()))
        for row in table.broken:
            missed[row.budget.is_enforced].append("%s, %s" % (name, row.what))
    if options.write and not options.names:  # a part would replace the whole
        _write_page(machine, sections)
    print("Budgets missed: " + ("; ".join(missed[True]) or "none"))
    print("Missed, not enforced: " + ("; ".join(missed[False]) or "none"))
    return 1 if missed[True] else 0


def _write_picture(table):
    """Whether that could be done."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    try:
        table.draw(PICTURES)
    except environment.Missing as error:
        print("%s\n" % error, flush=True)
        return False
    return True


def _write_page(machine, sections):
    PICTURES.mkdir(parents=True, exist_ok=True)
    page = "\n".join([_PAGE % machine, *sections])
    (PICTURES / "README.md").write_text(page, encoding="utf-8")


def _parse(arguments):
    parser = argparse.ArgumentParser("python3 run.py bench", description="The benchmarks.")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help="which; by default: %s. And there is: %s"
        % (", ".join(BENCHMARKS), ", ".join(ON_REQUEST)),
    )
    parser.add_argument(
        "--quick", action="store_true", help="an outage of 6 s instead of 60, with 10 readings a s"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="draw the pictures of docs/benchmarks anew; without names its page too",
    )
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in BENCHMARKS and name not in ON_REQUEST:
            parser.error("%r is none of %s" % (name, ", ".join((*BENCHMARKS, *ON_REQUEST))))
    return options


def _machine():
    """When and on what."""
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": "%s, %s cores" % (_cpu(), os.cpu_count()),
        "Python": platform.python_version(),
        "ours": tb_device_mqtt.__version__,
        "MiniMQTT": importlib.metadata.version("adafruit-circuitpython-minimqtt"),
        "peers": ", ".join("%s %s" % version for version in drivers.versions().items()),
    }
    return "\n".join("%-9s %s" % (name + ":", fact) for name, fact in facts.items())


def _cpu():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.partition(":")[2] for line in file if line.startswith("model name")]
    except OSError:
        models = []
    return (models[0].strip() if models else platform.processor()) or platform.machine()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
