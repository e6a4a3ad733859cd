# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The smallest stack for calls that a board has is large enough."""

from benchmarks import memory, pystack
from benchmarks.tables import LeftOut
from helpers import IN_CI, do_without

DEEPER = """import tb_device_mqtt
def deeper(function, levels):
    return function if not levels else deeper(lambda *a: function(*a), levels - 1)
client = tb_device_mqtt.TBDeviceMqttClient
client._call = deeper(client._call, %d)
"""
PROGRAM = """import stack
failed = []
for program in stack.HANDLERS:
    try:
        stack._Program(*program[1:]).run()
    except RuntimeError as error:
        failed.append("%s: %s" % (program[0], error))
result = ", ".join(failed)"""


def on_a_board(measure):
    found = memory.on_a_board(measure, IN_CI)
    if isinstance(found, LeftOut):
        do_without(found.reason)
    return found


def test_import_connect_and_every_handler_fit_into_the_smallest_stack():
    (failed,) = on_a_board(lambda bench, _: bench.results([PROGRAM], pystack.SMALLEST_BYTES))
    assert failed == ""


def test_a_chain_that_takes_too_many_bytes_is_found(monkeypatch):
    monkeypatch.setattr(pystack, "BYTES", DEEPER % 16 + pystack.BYTES)
    broken = [row.what for row in on_a_board(pystack.measure).broken]
    assert "check_for_msg -> rpc" in broken


def test_a_chain_of_too_many_calls_is_found(monkeypatch):
    monkeypatch.setattr(pystack, "CALLS", DEEPER % 2 + pystack.CALLS)
    (row,) = [row for row in on_a_board(pystack.measure).rows if row.what.startswith("calls from")]
    assert row.is_broken
