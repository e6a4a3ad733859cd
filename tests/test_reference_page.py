# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What a reader of the official SDK's reference page writes, works.

Source: ThingsBoard documentation, "CircuitPython Device MQTT client".
"""

import time

import pytest

from clients import Notes, payloads
from helpers import run_until
from tb_device_mqtt import TBDeviceMqttClient

RPC = "v1/devices/me/rpc/response/"


@pytest.fixture
def made(server, device):
    """A client as the page makes it, with PORT as a string."""
    client = TBDeviceMqttClient(host="127.0.0.1", port=str(server.port), access_token="TOKEN_A")
    yield client
    client.disconnect()


@pytest.fixture
def client(made):
    response = made.connect()
    assert response
    return made


def test_connected_tells_before_and_after(made):
    assert not made.connected
    made.connect()
    assert made.connected
    made.disconnect()
    assert not made.connected
    made.connect()
    assert made.connected


def test_attributes_are_key_and_value_pairs(client, device):
    client.send_attributes({"firmwareVersion": "v1", "enabled": True})
    run_until(
        client, lambda: device.client_attributes == {"firmwareVersion": "v1", "enabled": True}
    )


@pytest.mark.parametrize(
    "data, rows",
    (
        ({"temperature": 41.9}, [{"temperature": 41.9}]),
        ([{"temperature": 42.0}, {"humidity": 60}], [{"temperature": 42.0}, {"humidity": 60}]),
        ({"ts": 1451649600512, "values": {"voltage": 3.7}}, [{"voltage": 3.7}]),
        (
            [
                {"ts": 1451649600000, "values": {"voltage": 3.6}},
                {"ts": 1451649601000, "values": {"voltage": 3.5}},
            ],
            [{"voltage": 3.6}, {"voltage": 3.5}],
        ),
    ),
    ids=("dict", "list", "with time", "history"),
)
def test_telemetry_has_four_shapes(client, device, data, rows):
    client.send_telemetry(data)
    run_until(client, lambda: len(device.telemetry) == len(rows))
    assert [values for _, values in device.telemetry] == rows
    for entry, (ts, _) in zip(data if isinstance(data, list) else [data], device.telemetry):
        assert ts == entry.get("ts", ts)


def test_attributes_are_asked_for_and_waited_for_with_a_deadline(client, device):
    device.push_attributes({"targetTemperature": 21})
    answers = []

    def on_attributes(result, exception=None):
        answers.append((result, exception))

    client.request_attributes(
        client_keys=["atr1"], shared_keys=["targetTemperature"], callback=on_attributes
    )
    deadline = time.monotonic() + 20
    while not answers and time.monotonic() < deadline:
        client.check_for_msg()
        time.sleep(0.01)
    assert answers == [({"shared": {"targetTemperature": 21}}, None)]


def test_nothing_found_is_an_empty_result(client):
    answers = Notes()
    client.request_attributes(shared_keys=["nothing"], callback=answers)
    run_until(client, lambda: answers.calls)
    assert answers.calls == [({}, None)]


def test_updates_come_until_the_subscription_ends(client, device):
    single, every = Notes(), Notes()
    sub_id = client.subscribe_to_attribute("frequency", single)
    client.subscribe_to_all_attributes(every)
    run_until(client, lambda: device.subscriptions)
    device.push_attributes({"frequency": 5})
    run_until(client, lambda: every.calls)
    client.unsubscribe_from_attribute(sub_id)
    device.push_attributes({"frequency": 6})
    run_until(client, lambda: len(every.calls) == 2)
    assert single.firsts == [{"frequency": 5}]
    assert every.firsts == [{"frequency": 5}, {"frequency": 6}]


@pytest.mark.parametrize("answer", ({"CPU": 12.5}, "ok"))
def test_an_rpc_gets_the_reply_that_its_handler_sends(client, device, answer):
    bodies = []

    def on_server_side_rpc_request(request_id, request_body):
        bodies.append((request_id, request_body))
        client.send_rpc_reply(request_id, answer)

    client.set_server_side_rpc_request_handler(on_server_side_rpc_request)
    reply = device.call_rpc("getCPULoad", {"core": 0})
    run_until(client, reply.done)
    assert reply.result() == answer
    assert bodies == [(0, {"method": "getCPULoad", "params": {"core": 0}})]


@pytest.mark.parametrize("options", ({}, {"duration_ms": 60000}))
def test_a_device_is_claimed(client, device, options):
    client.claim_device("code", **options)
    run_until(client, lambda: device.claim)
    assert device.claim["secretKey"] == "code"
    assert device.claim.get("durationMs", 60000) == 60000 or not options


def test_the_fast_main_loop_runs_for_a_while_and_loses_nothing(client, device):
    """40 messages a second, as the page's loop makes them when the poll does not block."""
    for count in range(20):
        client.check_for_msg()
        client.send_telemetry({"CPU": count})
        client.send_attributes({"status": "ok"})
        time.sleep(0.05)
    assert client.flush(5)
    assert payloads(device, "v1/devices/me/telemetry") == [{"CPU": count} for count in range(20)]
    assert device.client_attributes == {"status": "ok"}
    assert client.stats["dropped"] == 0
