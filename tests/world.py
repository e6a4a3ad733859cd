# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A client in memory: one object to let time pass, bytes arrive, and to see what it sent."""

from fakes import FakePool
from faults import scripted_broker as mqtt
from faults.scripted_broker import packets_of
from tb_device_mqtt import TBDeviceMqttClient

CONNACK = mqtt.connack()


class World:
    """A client, its network and its time. Without a `MemoryServer` the test is the server."""

    def __init__(self, clock, server=None, pool=None, **options):
        self.clock = clock
        self.pool = pool or (server.pool if server else FakePool())
        self.messages = []  # (topic, payload) of what `listen` brings
        self.acknowledged = []  # message ids
        self.moves = []  # (ms, state)
        options = {"access_token": "TOKEN", "client_id": "me", **options}
        self.client = TBDeviceMqttClient("server.test", socket_pool=self.pool, **options)
        self.client.on_state = self._on_state
        self.client.on_publish = lambda _client, _data, _topic, number: self.acknowledged.append(
            number
        )
        self.client.idle = self.deliver  # while the client waits in connect() or flush()

    def _on_state(self, _client, _data, state, _reason):
        self.moves.append((self.clock.now_ms, state))

    def listen(self, topic="a/b"):
        self.client.subscribe(topic, lambda *message: self.messages.append(message))

    def deliver(self):
        self.pool.deliver()
        if self.pool.sockets:
            self.pool.sockets[-1].begin_poll()

    def poll(self, ms=1):
        """What the client has sent arrives, it polls once, and time passes."""
        self.deliver()
        self.client.check_for_msg()
        self.clock.advance(ms)

    def run(self, seconds, ms=20):
        end_ms = self.clock.now_ms + seconds * 1000
        while self.clock.now_ms < end_ms:
            self.poll(ms)

    def run_until(self, condition, seconds=5, ms=20):
        end_ms = self.clock.now_ms + seconds * 1000
        while not condition():
            assert self.clock.now_ms < end_ms, (
                self.client.state,
                self.client.last_error,
                self.client.stats,
            )
            self.poll(ms)

    def run_until_state(self, state, seconds=5, ms=20):
        self.run_until(lambda: self.client.state == state, seconds, ms)

    def run_until_sent(self, seconds=5):
        """Nothing waits any more, all was acknowledged."""
        self.run_until(lambda: self.client.pending_messages_count == 0, seconds)

    # --- the test as the server ---

    @property
    def socket(self):
        return self.pool.sockets[-1]

    def open_next(self, seconds=5):
        """The next connection, on which CONNECT has come and nothing was answered."""
        count = len(self.pool.sockets)
        self.run_until(lambda: len(self.pool.sockets) > count, seconds)

    def open(self, seconds=5):
        """`connect()`, as far as the next connection."""
        self.client.connect(timeout=0)
        self.open_next(seconds)

    def go_online(self):
        self.open()
        self.accept()

    def accept(self):
        self.socket.feed(CONNACK)
        self.run_until_state("online")

    def settle(self, polls=100):
        """So many polls that whatever has arrived is taken."""
        for _ in range(polls):
            self.poll()

    @property
    def sent(self):
        """What came on the last connection, as `mqtt.Packet`."""
        return packets_of(self.socket.sent)

    def sent_of(self, *types):
        return [packet for packet in self.sent if packet.type in types]

    def states(self):
        return ["stopped"] + [state for _, state in self.moves]

    def times_of(self, state):
        return [ms for ms, moved_to in self.moves if moved_to == state]
