# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Fixtures of all tests. The repository root, examples/ and tests/ are importable (pyproject)."""

import importlib

import pytest
from hypothesis import settings

from certificates import Certificates
from helpers import need

# The same examples in every run, and no clock in them: a failure is one to be mended, not repeated.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.load_profile("fixed")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory, certificates):
    program = need("mosquitto", "mosquitto")
    module = importlib.import_module("mosquitto")
    broker = module.start(program, lambda: tmp_path_factory.mktemp("mosquitto"), certificates)
    yield broker
    broker.close()


@pytest.fixture
def server():
    """A ThingsBoard stand-in on a free port."""
    with importlib.import_module("local_server").LocalServer() as running:
        yield running


@pytest.fixture
def tls_server(certificates):
    """The same with TLS, for localhost and 127.0.0.1."""
    context = certificates.server.server_context()
    with importlib.import_module("local_server").LocalServer(ssl_context=context) as running:
        yield running


@pytest.fixture
def proxy(server):
    """A `FaultProxy` on the way to the stand-in."""
    with importlib.import_module("faults.proxy").FaultProxy(server.port) as running:
        yield running


@pytest.fixture
def broker():
    """A broker that grants and acknowledges everything, unlike ThingsBoard."""
    module = importlib.import_module("faults.scripted_broker")
    with module.ScriptedBroker(lambda connection: connection.answer_everything()) as running:
        yield running


@pytest.fixture
def device(server):
    """The stand-in's side of a device; its access token is TOKEN_A."""
    return server.add_device("Device A", token="TOKEN_A")


@pytest.fixture
def offline(server, device):
    """A client of Device A that was not connected yet."""
    with importlib.import_module("clients").offline_client(server) as client:
        yield client


@pytest.fixture
def client(server, device):
    """A client of Device A that is online."""
    with importlib.import_module("clients").online_client(server) as client:
        yield client


@pytest.fixture
def open_peer(server):
    """Open a connection of bytes, as often as it is called."""
    module, peers = importlib.import_module("raw_peer"), []

    def open_one():
        peers.append(module.Peer(server))
        return peers[-1]

    yield open_one
    for one in peers:
        one.close()


@pytest.fixture
def peer(device, open_peer):
    """Device A, online by a connection of bytes."""
    return open_peer().connect("TOKEN_A")


@pytest.fixture(scope="module")
def not_measured():
    """Without coverage, which makes the library five times slower."""
    running = importlib.import_module("coverage").Coverage.current()
    if running:
        running.stop()
    yield
    if running:
        running.start()
