# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Claiming: what goes to the server, what is refused, and that nobody else is told the secret."""

import pytest

from clients import CLAIM, LogNotes, Notes, lose, offline_client, online_client, payloads
from helpers import run_until

SECRET = "s3cret-of-the-box"
ONE_DAY_MS = 86400000


@pytest.mark.parametrize("name", ["claim_device", "claim"])
def test_a_claim_brings_secret_and_duration(client, device, name):
    getattr(client, name)(SECRET, duration_ms=60000)
    assert client.flush(5)
    assert device.claim == {"secretKey": SECRET, "durationMs": 60000}
    assert payloads(device, CLAIM) == [{"secretKey": SECRET, "durationMs": 60000}]


def test_a_claim_without_duration_leaves_it_to_the_server(client, device):
    client.claim_device(SECRET)
    assert client.flush(5)
    assert payloads(device, CLAIM) == [{"secretKey": SECRET}]
    assert device.claim == {"secretKey": SECRET, "durationMs": ONE_DAY_MS}


def test_a_claim_without_secret_is_an_empty_object(client, device):
    client.claim_device()
    assert client.flush(5)
    assert payloads(device, CLAIM) == [{}]
    assert device.claim == {"secretKey": "", "durationMs": ONE_DAY_MS}


def test_a_claim_may_have_a_duration_alone(client, device):
    client.claim_device(duration_ms=1)
    assert client.flush(5)
    assert payloads(device, CLAIM) == [{"durationMs": 1}]


@pytest.mark.parametrize("secret", ["", "  ", "Grüße 温度", "007", '"}', "x" * 1000])
def test_the_secret_may_be_any_text(client, device, secret):
    client.claim_device(secret)
    assert client.flush(5)
    assert device.claim["secretKey"] == secret


def test_a_claim_is_acknowledged_by_number_at_quality_of_service_1(server, device):
    with online_client(server, quality_of_service=0) as client:
        client.on_publish = published = Notes()
        message_id = client.claim_device(SECRET)
        run_until(client, lambda: published.calls)
    assert published.calls == [(client, None, CLAIM, message_id)]
    assert [quality_of_service for _, _, quality_of_service, _ in device.messages] == [1]


def test_a_claim_before_connect_goes_out_after_it(server, device):
    with offline_client(server) as client:
        client.claim_device(SECRET, 60000)
        client.connect()
        assert client.flush(5)
    assert device.claim == {"secretKey": SECRET, "durationMs": 60000}


def test_a_claim_that_was_lost_is_sent_again(server, client, device):
    server.faults.drop_on = "PUBLISH"
    client.claim_device(SECRET)
    assert client.flush(5)
    assert device.claim["secretKey"] == SECRET
    assert device.connects == 2


@pytest.mark.parametrize(
    "duration_ms", [0, -1, -60000, "60000", True, float("nan"), float("inf"), [1], 1 << 70]
)
def test_a_duration_that_can_not_be_is_refused_by_name(client, device, duration_ms):
    with pytest.raises((TypeError, ValueError), match="duration_ms"):
        client.claim_device(SECRET, duration_ms)
    assert client.pending_messages_count == 0
    client.claim_device(SECRET, 60000)
    assert client.flush(5)
    assert len(device.messages) == device.connects == 1


@pytest.mark.parametrize("secret", [12345, b"s3cret-of-the-box", ["s3cret-of-the-box"], True])
def test_a_secret_that_is_no_text_is_refused_without_telling_it(client, device, secret):
    with pytest.raises(TypeError, match="secret_key") as caught:
        client.claim_device(secret)
    assert "s3cret" not in str(caught.value)
    assert "12345" not in str(caught.value)
    assert client.pending_messages_count == 0


def test_a_secret_above_the_limit_is_refused_without_telling_it(client, device):
    with pytest.raises(ValueError, match="limit") as caught:
        client.claim_device(SECRET * 2000)
    assert SECRET not in str(caught.value)
    assert client.pending_messages_count == 0


def test_the_secret_is_in_no_log_error_or_statistic(server, device):
    logger = LogNotes()
    with online_client(server, logger=logger, queue_size=2) as client:
        server.faults.close_on = b"secretKey"
        client.claim_device(SECRET)
        for _ in range(3):  # hung up on, and again, ...
            run_until(client, lambda: not client.connected)
            run_until(client, lambda: client.connected)
        lose(client, device)
        for _ in range(5):
            client.claim_device(SECRET)  # ... and dropped for want of room
        with pytest.raises(TypeError):
            client.claim_device([SECRET])
        run_until(client, lambda: client.stats["dropped"] >= 3)
        told = [logger.text, repr(client), repr(client.stats), repr(client.last_error)]
        told += [client.state, str(client.last_error)]
    assert "dropped" in logger.text
    assert SECRET not in "".join(told)
