# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The stand-in's page, for browsers on the same computer and for no others."""

import http.client
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest

from local_server import LocalServer
from local_server.page import own_hosts
from raw_peer import WAIT_S, Peer, puback

TELEMETRY = "v1/devices/me/telemetry"
OTHER_ADDRESSES = pytest.mark.skipif(
    sys.platform == "darwin", reason="macOS has none of the other addresses 127.x.x.x"
)


def test_the_page_shows_devices_and_escapes_everything():
    with LocalServer(page_port=0) as server:
        device = server.add_device("<Roof>", token="TOKEN")
        peer = Peer(server).connect()
        peer.publish(TELEMETRY, b'{"k&":"<b>"}')
        assert peer.read() == puback(1)
        device.push_attributes({"x": "<i>"})
        with urllib.request.urlopen(server.url, timeout=WAIT_S) as response:
            page = response.read().decode()
        peer.close()
    for shown in ("&lt;Roof&gt;", "online", "k&amp;: &lt;b&gt;", "x: &lt;i&gt;"):
        assert shown in page
    for raw in ("<Roof>", "<b>", "<i>"):
        assert raw not in page


@pytest.mark.parametrize(
    ("method", "path", "status"), (("GET", "other", 404), ("POST", "", 405), ("HEAD", "", 405))
)
def test_the_page_answers_nothing_else(method, path, status):
    with LocalServer(page_port=0) as server:
        request = urllib.request.Request(server.url + path, method=method)
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(request, timeout=WAIT_S)
        refusal.value.close()
        assert refusal.value.code == status


@pytest.fixture
def page():
    with LocalServer(page_port=0) as server:
        yield urlsplit(server.url)


def status_of(page, method, **headers):
    """Ask for the page with exactly these headers; *PORT* in them is its port."""
    connection = http.client.HTTPConnection(page.hostname, page.port, timeout=WAIT_S)
    connection.putrequest(method, "/", skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value.replace("PORT", str(page.port)))
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("host", ("127.0.0.1:PORT", "localhost:PORT", "LOCALHOST:PORT"))
def test_the_page_knows_its_own_names(page, host):
    assert status_of(page, "GET", Host=host) == 200


@pytest.mark.parametrize(
    "host",
    (
        "rebound.example:PORT",
        "127.0.0.1.rebound.example:PORT",
        "rebound.example",
        "localhost",
        "localhost:1",
        "127.0.0.2:PORT",
        "0.0.0.0:PORT",
        "",
    ),
)
@pytest.mark.parametrize("method", ("GET", "POST", "HEAD", "PUT"))
def test_a_foreign_host_is_refused(page, method, host):
    assert status_of(page, method, Host=host) == 403


def test_a_request_without_host_is_refused(page):
    assert status_of(page, "GET") == 403


def test_two_hosts_are_refused(page):
    assert status_of(page, "GET", Host="localhost:PORT", host="localhost:PORT") == 403


@pytest.mark.parametrize(
    "origin",
    (
        "http://evil.example",
        "http://localhost.evil.example:PORT",
        "http://localhost",
        "http://localhost:1",
        "https://localhost:PORT",
        "localhost:PORT",
        "null",
        "",
    ),
)
@pytest.mark.parametrize("method", ("POST", "PUT", "DELETE"))
def test_a_post_of_another_site_is_refused(page, method, origin):
    assert status_of(page, method, Host="localhost:PORT", Origin=origin) == 403


@pytest.mark.parametrize("headers", ({}, {"Origin": "http://127.0.0.1:PORT"}))
def test_a_post_from_the_page_itself_is_only_not_there(page, headers):
    assert status_of(page, "POST", Host="localhost:PORT", **headers) == 405


@OTHER_ADDRESSES
def test_the_page_is_known_by_the_address_that_it_was_asked_at():
    with LocalServer(page_port=0, host="127.0.0.2") as server:
        assert status_of(urlsplit(server.url), "GET", Host="127.0.0.2:PORT") == 200


@OTHER_ADDRESSES
def test_any_address_is_listened_at_and_each_is_a_name():
    with LocalServer(page_port=0, host="0.0.0.0") as server:
        page = urlsplit("http://127.0.0.3:%d/" % urlsplit(server.url).port)
        assert status_of(page, "GET", Host="127.0.0.3:PORT") == 200
        assert status_of(page, "GET", Host="0.0.0.0:PORT") == 200
        assert status_of(page, "GET", Host="127.0.0.4:PORT") == 403


def test_the_port_of_http_may_be_left_out():
    assert "localhost" in own_hosts(80, "192.0.2.1")
    assert "192.0.2.1" in own_hosts(80, "192.0.2.1")
    assert own_hosts(8080, "::1") == {"127.0.0.1:8080", "localhost:8080", "[::1]:8080"}
