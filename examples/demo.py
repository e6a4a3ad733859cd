# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The main job in one terminal: a simulated board, a ThingsBoard stand-in, and an outage.

`python3 run.py demo [--seconds N]` starts it. The class Board is what would be `code.py` on a real
one: the same module, only lamp and sensor are made up. The exit status is 0 if everything that is
promised at the end was seen.
"""

import argparse
import math
import sys
import time

from local_server import LocalServer
from tb_device_mqtt import TBDeviceMqttClient

TOKEN = "DEMO_TOKEN"
SHORTEST_S = 12
OUTAGE_S = 4


class Board:
    """Measures, sends, lets its interval and its lamp be set."""

    def __init__(self, port):
        self.lamp = False
        self.interval_s = 1.0
        self.taken = []  # (ts in ms, count): what the server must have in the end
        self.due_s = time.monotonic()
        self.client = client = TBDeviceMqttClient("127.0.0.1", port, TOKEN, logger=False)
        client.subscribe_to_attribute("interval", self.on_interval)
        client.rpc("setLamp")(self.set_lamp)
        client.on_state = self.on_state

    def on_interval(self, result, *_args):
        self.interval_s = result.get("interval", 1.0)
        say("board", "reports every %g s from now on" % self.interval_s)

    def set_lamp(self, is_on):
        self.lamp = is_on
        say("board", "lamp is %s" % ("on" if is_on else "off"))
        return {"lamp": self.lamp}

    def on_state(self, _client, _user_data, state, reason):
        say("board", "%s%s" % (state, " (%s)" % reason if reason else ""))

    def loop(self):
        """One pass of the main loop."""
        self.client.check_for_msg()
        if time.monotonic() >= self.due_s:
            self.due_s += self.interval_s
            count = len(self.taken)
            self.taken.append((int(time.time() * 1000), count))
            temperature = round(21 + 3 * math.sin(count / 5), 2)
            self.client.send_telemetry({"temperature": temperature, "count": count})


def say(who, text):
    print("%6.1f s  %-7s %s" % (time.monotonic() - START_S, who, text), flush=True)


START_S = time.monotonic()


class Demo:
    def __init__(self, server):
        self.server = server
        self.device = server.add_device("Demo board", token=TOKEN)
        self.board = Board(server.port)
        self.shown = 0
        self.seen = {}

    def run(self, seconds):
        """Each step when its time has come; the board's loop runs all along."""
        self.board.client.connect()
        for part, step in (
            (0.2, self.change_interval),
            (0.35, self.switch_lamp),
            (0.5, self.stop_server),
        ):
            self.play_until(seconds * part)
            step()
        self.play_until(seconds * 0.5 + OUTAGE_S)
        self.start_server()
        self.play_until(seconds)
        self.board.client.flush(20)  # whatever pause the reconnecting is in
        self.board.client.disconnect()
        self.show_telemetry()

    def play_until(self, end_s, is_done=None):
        while time.monotonic() - START_S < end_s and not (is_done and is_done()):
            self.board.loop()
            self.show_telemetry()
            time.sleep(0.002)

    def show_telemetry(self):
        rows = self.device.telemetry[self.shown :]
        self.shown += len(rows)
        for ts, values in rows:
            clock = time.strftime("%H:%M:%S", time.localtime(ts / 1000)) + ".%03d" % (ts % 1000)
            say("server", "got telemetry of %s %s" % (clock, values))

    def change_interval(self):
        say("server", "sets the shared attribute interval to 0.5")
        self.device.push_attributes({"interval": 0.5})
        self.wait_for(
            "the attribute changed the board's interval", lambda: self.board.interval_s == 0.5
        )

    def switch_lamp(self):
        say("server", "calls setLamp(true)")
        reply = self.device.call_rpc("setLamp", True)
        self.wait_for("the RPC switched the lamp and was answered", reply.done)
        if reply.done():
            say("server", "got the reply %s" % reply.result())

    def stop_server(self):
        say("server", "is stopped for %d s" % OUTAGE_S)
        self.down_at = len(self.board.taken)
        self.server.stop_listening()
        self.wait_for("the board noticed", lambda: not self.board.client.connected)

    def start_server(self):
        self.up_at = len(self.board.taken)
        say("server", "is back; %d readings were taken meanwhile" % (self.up_at - self.down_at))
        self.server.listen_again()

    def wait_for(self, what, condition):
        self.play_until(time.monotonic() - START_S + 5, condition)
        self.seen[what] = condition()

    def verdict(self):
        """``[(what was promised, whether it happened), ...]``"""
        stored = {values["count"]: ts for ts, values in self.device.telemetry}
        lost = [count for _, count in self.board.taken if count not in stored]
        late = self.board.taken[self.down_at : self.up_at]
        worst_ms = max(abs(stored.get(count, 0) - ts) for ts, count in late)
        return [
            *self.seen.items(),
            ("all %d readings arrived" % len(self.board.taken), not lost),
            (
                "the %d of the outage with their own time, %d ms off at most"
                % (len(late), worst_ms),
                worst_ms < 50,
            ),
        ]


def main():
    parser = argparse.ArgumentParser(prog="run.py demo", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--seconds", type=float, default=30, help="how long, %g at least" % SHORTEST_S
    )
    seconds = max(SHORTEST_S, parser.parse_args().seconds)
    with LocalServer(page_port=0) as server:
        print("ThingsBoard stand-in on port %d, its page: %s" % (server.port, server.url))
        demo = Demo(server)
        demo.run(seconds)
        print()
        verdict = demo.verdict()
        for text, happened in verdict:
            print("%-4s %s" % ("ok" if happened else "NOT", text))
    sys.exit(0 if all(happened for _, happened in verdict) else 1)


if __name__ == "__main__":
    main()
