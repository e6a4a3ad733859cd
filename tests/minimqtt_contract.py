# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What the library and one MiniMQTT owe each other, as a script for an environment of its own.

    python -S tests/minimqtt_contract.py CLAUSE CA_FILE CERTIFICATE_FILE KEY_FILE

`test_minimqtt_versions.py` runs each clause with each version. It needs the library, the stand-in
and MiniMQTT on PYTHONPATH, and nothing of what the tests need.
"""

import socket
import ssl
import sys
import time
from importlib.metadata import version

from adafruit_connection_manager import get_connection_manager
from adafruit_minimqtt.adafruit_minimqtt import MQTT

from local_server import LocalServer
from tb_device_mqtt import TBDeviceMqttClient

CONNECT = (
    b"\x10\x1d\x00\x04MQTT\x04\xc2\x00\x3c"  # clean session, user name and password, 60 s
    b"\x00\x08contract\x00\x05TOKEN\x00\x00"
)


# --- what the link relies on ---


class RecordingPool:
    """The one socket that is asked for, and what is done with it, in order."""

    AF_INET, SOCK_STREAM = socket.AF_INET, socket.SOCK_STREAM

    def __init__(self):
        self.calls = []
        self._answer = b"\x20\x02\x00\x00"

    def getaddrinfo(self, host, port, _family=0, _kind=0):
        return [(self.AF_INET, self.SOCK_STREAM, 0, "", (host, port))]

    def socket(self, *_arguments):
        self.calls.append("socket")
        return self

    def settimeout(self, _seconds):
        """Not of interest."""

    def connect(self, _address):
        self.calls.append("connect")

    def send(self, data):
        self.calls.append(bytes(data))
        return len(data)

    def recv_into(self, buffer, size=0):
        assert self._answer, "MQTT reads more than CONNACK"
        if self.calls[-1] != "read":
            self.calls.append("read")
        size = min(size or len(buffer), len(self._answer))
        buffer[:size] = self._answer[:size]
        self._answer = self._answer[size:]
        return size

    def close(self):
        self.calls.append("close")

    @property
    def sent(self):
        return b"".join(call for call in self.calls if isinstance(call, bytes))


def connect_reads_nothing_but_connack():
    pool = RecordingPool()
    mqtt = MQTT(
        broker="server",
        port=18830,
        username="TOKEN",
        password="",
        client_id="contract",
        socket_pool=pool,
        ssl_context=None,
        is_ssl=False,
        use_binary_mode=True,
        connect_retries=1,
        keep_alive=60,
    )
    mqtt.connect(clean_session=True)
    assert pool.calls[:2] == ["socket", "connect"], pool.calls
    assert pool.calls[-1] == "read" and pool.calls.count("read") == 1, pool.calls
    assert pool.sent == CONNECT, pool.sent
    assert mqtt.is_connected()
    assert (mqtt.broker, mqtt.port, mqtt.keep_alive) == ("server", 18830, 60)
    mqtt.disconnect()
    assert pool.calls[-1] == "close", pool.calls
    assert pool.sent == CONNECT + b"\xe0\x00", pool.sent
    assert not mqtt.is_connected()
    assert get_connection_manager(pool).managed_socket_count == 0


# --- what the user sees ---


def poll(client, condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        client.check_for_msg()
        assert time.monotonic() < end, (client.state, client.last_error, client.stats)
        time.sleep(0.0005)


def use_every_feature(client, device):
    """Telemetry, attributes, RPC both ways, and a server that goes away in between."""
    changes = []
    client.rpc("add")(lambda params: params["a"] + params["b"])
    client.subscribe_to_attribute("interval", lambda result, *_: changes.append(result))
    client.connect()
    client.send_telemetry({"temperature": 21.5})
    client.send_attributes({"model": "mk1"})
    assert client.flush(5)
    assert device.telemetry[-1][1] == {"temperature": 21.5}
    assert device.client_attributes == {"model": "mk1"}
    poll(client, lambda: len(device.subscriptions) == 2)

    receive_everything(client, device, changes, 1)
    device.disconnect(rst=True)
    poll(client, lambda: device.connects == 2 and len(device.subscriptions) == 3)
    receive_everything(client, device, changes, 2)
    client.disconnect()
    assert client.state == "stopped"
    assert device.wait(lambda d: not d.online)


def receive_everything(client, device, changes, count):
    answers = []
    device.push_attributes({"interval": count})
    poll(client, lambda: len(changes) == count)
    assert changes[-1] == {"interval": count}, changes
    client.request_attributes(["model"], ["interval"], lambda *pair: answers.append(pair))
    poll(client, lambda: answers)
    expected = {"client": {"model": "mk1"}, "shared": {"interval": count}}
    assert answers == [(expected, None)], answers
    reply = device.call_rpc("add", {"a": count, "b": 2})
    poll(client, reply.done)
    assert reply.result() == count + 2


def check_everything(ssl_context=None, **options):
    with LocalServer(ssl_context=ssl_context) as server:
        device = server.add_device("Contract", token="TOKEN")
        client = TBDeviceMqttClient("localhost", server.port, "TOKEN", **options)
        client._link.backoff_ms = 20
        use_every_feature(client, device)


def everything_works():
    check_everything()


def everything_works_over_tls(ca_file, certificate_file, key_file):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    check_everything(context, tls=ca_file)


def connect_of(prepare=lambda client: None, **options):
    """CONNECT as it leaves, without its fixed header."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client = TBDeviceMqttClient("127.0.0.1", port, client_id="w", **options)
        prepare(client)
        client.connect(timeout=0)
        poll(client, lambda: client.stats["connects"] == 1)
        connection, _ = listener.accept()
        with connection:
            received = connection.recv(100)
            client.disconnect()
    assert received[:2] == bytes((0x10, len(received) - 2)), received
    return received[2:]


def check_will(payload):
    received = connect_of(lambda client: client.will_set("last/will", payload, 1, True))
    # 2: clean session, 4: will, 8: its quality of service is 1, 0x20: it is retained
    expected = b"\x00\x04MQTT\x04\x2e\x00\x3c\x00\x01w\x00\x09last/will\x00\x04gone"
    assert received == expected, received


def a_token_travels_without_a_password():
    start = b"\x00\x04MQTT\x04"
    received = connect_of(access_token="TOKEN")
    assert received == start + b"\x82\x00\x3c\x00\x01w\x00\x05TOKEN", received
    received = connect_of(username="u", password="p")
    assert received == start + b"\xc2\x00\x3c\x00\x01w\x00\x01u\x00\x01p", received
    received = connect_of(lambda client: client.will_set("t", "x"), access_token="TOKEN")
    expected = start + b"\x86\x00\x3c\x00\x01w\x00\x01t\x00\x01x\x00\x05TOKEN"
    assert received == expected, received


def a_will_goes_into_connect():
    check_will("gone")
    check_will(b"gone")


CLAUSES = {
    "connect_reads_nothing_but_connack": connect_reads_nothing_but_connack,
    "everything_works": everything_works,
    "everything_works_over_tls": everything_works_over_tls,
    "a_will_goes_into_connect": a_will_goes_into_connect,
    "a_token_travels_without_a_password": a_token_travels_without_a_password,
}


def main(clause, *certificates):
    CLAUSES[clause](*(certificates if clause.endswith("tls") else ()))
    print("kept by MiniMQTT", version("adafruit-circuitpython-minimqtt"))


if __name__ == "__main__":
    main(*sys.argv[1:])
