# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What several test files use."""

import os
import shutil
import socket
import time

import pytest

IN_CI = os.environ.get("CI") == "true"
_PAUSE_S = 0.0005  # between two polls: lets the threads of server and proxy work


def run_until(client, condition, timeout=5):
    """Call ``client.check_for_msg()`` until ``condition()`` is true.

    :return float: milliseconds that the longest single call took
    :raises AssertionError: it did not become true within *timeout* seconds
    """
    longest_s = 0.0
    end = time.monotonic() + timeout
    while True:
        started = time.perf_counter()
        client.check_for_msg()
        longest_s = max(longest_s, time.perf_counter() - started)
        if condition():
            return longest_s * 1000
        if time.monotonic() > end:
            raise AssertionError(
                "not within %s s; state %r, last error %r, stats %r"
                % (timeout, client.state, client.last_error, client.stats)
            )
        time.sleep(_PAUSE_S)


def run_for(client, seconds):
    """Poll for *seconds*; the milliseconds of the longest single call."""
    end = time.monotonic() + seconds
    return run_until(client, lambda: time.monotonic() >= end, timeout=seconds + 5)


def wait_until(condition, timeout=5):
    """Wait for another thread, which no poll of a client would move on."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("not within %s s" % timeout)
        time.sleep(_PAUSE_S)


def find_tool(name):
    """Path of a program, or None; Debian keeps daemons where only root's PATH leads."""
    folders = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/usr/local/sbin"
    return shutil.which(name, path=folders)


def need(tool, apt_package=None):
    """Path of the program *tool*; without it the test is skipped, in CI it fails."""
    path = find_tool(tool)
    if path is None:
        do_without("%s is missing: sudo apt-get install %s" % (tool, apt_package or tool))
    return path


def do_without(reason):
    """Skip the running test, in CI fail it: there a skipped test would go unnoticed."""
    if IN_CI:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def free_port():
    """A port that nobody listens on at this moment, and never the default port of MQTT."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_listening(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
