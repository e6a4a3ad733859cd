# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Inside any callback any method may be called, and Ctrl-C may come: the client goes on."""

import pytest

from clients import ATTRIBUTES, Notes
from fakes import Clock, MemoryServer
from tb_device_mqtt import TBDeviceMqttClient


class World:
    """A client of the stand-in in memory; while it waits, what it sent arrives."""

    def __init__(self, clock):
        self.clock = clock
        self.server = MemoryServer(clock)
        self.device = self.server.add_device("Device A", "TOKEN_A")
        self.logger = Logger()
        self.client = TBDeviceMqttClient(
            "server.test",
            access_token="TOKEN_A",
            socket_pool=self.server.pool,
            queue_size=8,
            logger=self.logger,
        )
        self.client.request_timeout = 0.2
        clock.sleep = self.sleep

    def sleep(self, seconds):
        """What the client waits with."""
        self.deliver()
        self.clock.advance(max(1, int(seconds * 1000)))

    def deliver(self):
        self.server.pool.deliver()
        if self.server.pool.socket_now is not None:
            self.server.pool.socket_now.begin_poll()

    def poll_until(self, condition, limit_s=120):
        end_ms = self.clock.now_ms + limit_s * 1000
        while not condition():
            assert self.clock.now_ms < end_ms, (self.client.state, self.client.last_error)
            self.deliver()
            self.client.check_for_msg()
            self.clock.advance(10)

    def go_online(self):
        self.client.connect(timeout=0)
        self.poll_until(lambda: self.client.connected)

    def is_well(self):
        """It takes a call, answers, and what it sends is stored."""
        self.client.idle = None
        self.go_online()
        answered = Notes()
        self.client.rpc("are you well")(lambda params: params)
        reply = self.device.call_rpc("are you well", "yes", timeout=1000)
        self.client.request_attributes("a", callback=answered)
        self.poll_until(lambda: reply.done() and answered.calls)
        self.client.send_telemetry({"well": 1})
        self.poll_until(lambda: self.client.pending_messages_count == 0)
        is_served = reply.result() == "yes" and self.device.latest("well") == 1
        return is_served and self.is_told()

    def is_told(self):
        """Whether it hears of what is dropped."""
        self.client.on_drop = dropped = Notes()
        self.client.disconnect(0)
        for number in range(9):
            self.client.send_attributes({"b": number})
        self.client.check_for_msg()
        return len(dropped.calls) == 1


class Logger:
    """Calls *told*, once it is set."""

    told = None

    def warning(self, *arguments):
        if self.told:
            self.told(*arguments)


@pytest.fixture
def world():
    with Clock() as clock:
        yield World(clock)


# --- each kind of callback, and what makes the client call it ---


def on(name, act):
    def arrange(world, callback):
        def set_and_act():
            setattr(world.client, name, callback)
            act(world)

        return set_and_act

    return arrange


def send(world):
    world.client.send_telemetry({"x": 1})


def overfill(world):
    world.server.faults.silent = True
    world.device.disconnect()
    for number in range(9):
        world.client.send_attributes({"x": number})
    world.server.faults.silent = False


def rpc_method(world, callback):
    world.client.rpc("do")(callback)
    return lambda: world.device.call_rpc("do", 1, timeout=1000)


def rpc_handler(world, callback):
    world.client.set_server_side_rpc_request_handler(callback)
    return lambda: world.device.call_rpc("do", 1, timeout=1000)


def attribute_watch(world, callback):
    world.client.subscribe_to_attribute("x", callback)
    return lambda: world.device.push_attributes({"x": 1})


def plain_subscription(world, callback):
    world.client.subscribe(ATTRIBUTES, callback)
    return lambda: world.device.push_attributes({"x": 1})


def attributes_answer(world, callback):
    return lambda: world.client.request_attributes("x", callback=callback)


def attributes_timeout(world, callback):
    def act():
        world.server.faults.response_delay = 60
        world.client.request_attributes("x", callback=callback, timeout=0.1)

    return act


def rpc_answer(world, callback):
    return lambda: world.client.send_rpc_call("getSessionLimits", {}, callback)


def end_of_a_request(world, callback):
    def act():
        world.client.send_rpc_call("never answered", None, callback, 600)
        world.client.disconnect()

    return act


def logger(world, callback):
    world.logger.told = callback
    return world.device.disconnect


def idle(world, callback):
    def act():
        world.client.idle = callback
        world.client.wait_for_msg(0.05)

    return act


def companion(world, callback):
    class Companion:
        def poll(self):
            callback()

    return lambda: world.client.attach(Companion())


KINDS = {
    "on_connect": on("on_connect", lambda world: world.device.disconnect()),
    "on_disconnect": on("on_disconnect", lambda world: world.device.disconnect()),
    "on_disconnect of disconnect()": on("on_disconnect", lambda world: world.client.disconnect()),
    "on_state": on("on_state", lambda world: world.device.disconnect()),
    "on_publish": on("on_publish", send),
    "on_drop": on("on_drop", overfill),
    "rpc": rpc_method,
    "set_server_side_rpc_request_handler": rpc_handler,
    "subscribe_to_attribute": attribute_watch,
    "subscribe": plain_subscription,
    "request_attributes": attributes_answer,
    "request_attributes, timeout": attributes_timeout,
    "send_rpc_call": rpc_answer,
    "send_rpc_call, disconnected": end_of_a_request,
    "logger": logger,
    "idle": idle,
    "poll of a companion": companion,
}

USES = {
    "attach": lambda client: client.attach(object()),
    "check_for_msg": lambda client: client.check_for_msg(),
    "wait_for_msg": lambda client: client.wait_for_msg(0.01),
    "flush": lambda client: client.flush(0.05),
    "connect": lambda client: client.connect(),
    "connect(0)": lambda client: client.connect(timeout=0),
    "disconnect": lambda client: client.disconnect(),
    "disconnect(0)": lambda client: client.disconnect(0),
    "disconnect, connect": lambda client: (client.disconnect(), client.connect(0)),
    "with": lambda client: client.__exit__(None, None, None),
    "send_telemetry": lambda client: client.send_telemetry({"a": 1}),
    "20 x send_telemetry": lambda client: [client.send_telemetry({"a": n}) for n in range(20)],
    "send_telemetry of a list": lambda client: client.send_telemetry([{"a": 1}, {"a": 2}]),
    "send_attributes": lambda client: client.send_attributes({"a": 1}),
    "request_attributes": lambda client: client.request_attributes(["a"], callback=Notes()),
    "subscribe_to_attribute": lambda client: client.subscribe_to_attribute("a", Notes()),
    "subscribe_to_all": lambda client: client.subscribe_to_all_attributes(Notes()),
    "unsubscribe_from_attribute": lambda client: client.unsubscribe_from_attribute("*"),
    "clean_device_sub_dict": lambda client: client.clean_device_sub_dict(),
    "set_handler": lambda client: client.set_server_side_rpc_request_handler(Notes("other")),
    "no handler": lambda client: client.set_server_side_rpc_request_handler(None),
    "rpc": lambda client: client.rpc("another")(Notes()),
    "send_rpc_reply": lambda client: client.send_rpc_reply(999, "ok"),
    "send_rpc_call": lambda client: client.send_rpc_call("getSessionLimits", {}, Notes()),
    "claim_device": lambda client: client.claim_device("code", 60000),
    "shared": lambda client: client.shared.setdefault("a", 1),
    "publish": lambda client: client.publish("any/topic", b"payload"),
    "subscribe": lambda client: client.subscribe(ATTRIBUTES, Notes()),
    "unsubscribe": lambda client: client.unsubscribe(ATTRIBUTES),
    "what it says": lambda client: (
        client.state,
        client.connected,
        client.is_connected(),
        client.pending_messages_count,
        client.last_error,
        client.stats,
    ),
}


class Once:
    """A callback that does *act* at its first call; *error*: what came of that."""

    def __init__(self, act):
        self._act = act
        self.calls = 0
        self.error = None

    def __call__(self, *_arguments):
        self.calls += 1
        if self.calls == 1:
            try:
                self._act()
            except Exception as error:  # the library would count it
                self.error = error


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_inside_any_callback_any_method_may_be_called(world, kind, use):
    callback = Once(lambda: use(world.client))
    act = kind(world, callback)
    world.go_online()
    act()
    world.poll_until(lambda: callback.calls)
    assert callback.error is None
    assert world.client.stats["handler_errors"] == 0
    assert world.is_well()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_ctrl_c_inside_any_callback_comes_through_and_the_client_goes_on(world, kind):
    interrupted = []

    def interrupt():
        interrupted.append(True)
        raise KeyboardInterrupt

    callback = Once(interrupt)
    act = kind(world, callback)
    world.go_online()
    with pytest.raises(KeyboardInterrupt):
        act()
        world.poll_until(lambda: False, limit_s=5)
    assert interrupted == [True]
    assert world.client.stats["handler_errors"] == 0
    assert world.is_well()


THOSE_THAT_MAY_WAIT = [name for name in KINDS if name != "poll of a companion"]


@pytest.mark.parametrize("kind", THOSE_THAT_MAY_WAIT)
def test_a_callback_that_calls_what_waits_each_time_does_not_nest(world, kind):
    """Inside `idle` too, which those very methods call."""
    depth = [0, 0]

    def wait(*_arguments):
        depth[0] += 1
        depth[1] = max(depth)
        assert depth[0] < 20
        world.client.flush(0.005)
        world.client.wait_for_msg(0.005)
        depth[0] -= 1

    act = KINDS[kind](world, wait)
    world.go_online()
    act()
    world.poll_until(lambda: depth[1])
    assert depth[1] <= 2


def test_idle_may_send_although_the_queue_is_full(world):
    """Sending then waits for room, which calls `idle`, which sends."""
    numbers = iter(range(1000))

    def send_next():
        world.client.send_telemetry({"n": next(numbers)})

    world.go_online()
    world.client.idle = send_next
    for _ in range(50):
        send_next()
    world.client.idle = None
    world.poll_until(lambda: world.client.pending_messages_count == 0)
    stored = [value for _, value in world.device.stored("n")]
    assert sorted(stored) == list(range(next(numbers)))
    assert world.client.stats["dropped"] == 0
