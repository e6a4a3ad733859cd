# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What one wake-up of examples/deep_sleep.py costs: waiting for the server, and bytes of radio."""

import contextlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path

from certificates import Certificates
from faults.proxy import FaultProxy
from helpers import wait_until
from local_server import LocalServer

from . import rig
from .tables import Row, Table, exactly

_ROOT = Path(__file__).resolve().parent.parent.parent
_BOARDS = _ROOT / "tests" / "boards"
_LINK_MS = 100
_TIMEOUT_S = 60
_CLIENT_ID = "tb-e660583883724a32"  # of the made-up board

# --- what travels, as MQTT 3.1.1 lays it out ---

_READING = {"memory": 123456, "given_up": 0}
_PAYLOAD = json.dumps(_READING, separators=(",", ":"))
# Fixed header; "MQTT", level, flags, keep-alive; client id, token.
_CONNECT_BYTES = 2 + 10 + (2 + len(_CLIENT_ID)) + (2 + len(rig.TOKEN))
_PUBLISH_BYTES = 2 + (2 + len("v2/t")) + 2 + len(_PAYLOAD)
_DISCONNECT_BYTES = 2
_SENT_BYTES = _CONNECT_BYTES + _PUBLISH_BYTES + _DISCONNECT_BYTES
_RECEIVED_BYTES = 4 + 4  # CONNACK, PUBACK

# How often a board has to wait for the server: for TCP, TLS 1.2 (twice), CONNACK with PUBACK.
_WAITS, _TLS_WAITS = 2, 4


def deep_sleep(link_ms=_LINK_MS):
    """What does a wake-up from deep sleep cost, from connect to DISCONNECT?"""
    with tempfile.TemporaryDirectory() as folder:
        certificates = Certificates(Path(folder))
        plain, tls = (_wake_up(link_ms, folder, pair) for pair in (None, certificates.server))
        peer = _of_peer(link_ms, None, None)
        tls_peer = _of_peer(link_ms, certificates.server, certificates.ca)
    return Table(
        [
            Row("round trips", plain.waits, "", exactly(_WAITS), peer.waits),
            Row("bytes sent", plain.sent, "B", exactly(_SENT_BYTES), peer.sent),
            Row("bytes received", plain.received, "B", exactly(_RECEIVED_BYTES), peer.received),
            Row("TLS: round trips", tls.waits, "", exactly(_TLS_WAITS), tls_peer.waits),
            Row("TLS: bytes sent", tls.sent, "B", None, tls_peer.sent),
            Row("TLS: bytes received", tls.received, "B", None, tls_peer.received),
        ],
        "examples/deep_sleep.py on a made-up board, over a link of %d ms. A round trip is one that "
        "the board waits for: TCP's handshake, and each time something comes back. Bytes are those "
        "that TCP carries. TLS 1.2, as boards speak it, with one elliptic certificate: its bytes "
        "change with the server's certificates. MiniMQTT: connect(), publish() of the same reading "
        "to v1/devices/me/telemetry at QoS 1, disconnect()." % link_ms,
    )


class WakeUp:
    """The traffic of one, of a `FaultProxy` transcript.

    *answered*: how many segments there were before DISCONNECT; what comes behind it, such as TLS's
    goodbye, reaches nobody.
    """

    def __init__(self, transcript):
        last = max(count for count, segment in enumerate(transcript) if segment.way == "to_server")
        heard = transcript[: last + 1]
        self.sent = _bytes(heard, "to_server")
        self.received = _bytes(heard, "to_client")
        answers = [way for way, _ in groupby(segment.way for segment in heard)]
        self.waits = 1 + answers.count("to_client")


def _bytes(transcript, way):
    return sum(len(segment.data) for segment in transcript if segment.way == way)


@contextlib.contextmanager
def _link(link_ms, pair):
    """A server behind a slow link: the `FaultProxy`, and a function that waits for the end."""
    context = None
    if pair is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    with LocalServer(ssl_context=context) as server, FaultProxy(server.port) as proxy:
        server.add_device("Device A", token=rig.TOKEN)
        proxy.round_trip(link_ms / 1000)
        yield proxy
        wait_until(lambda: not server.connections, _TIMEOUT_S)


def _wake_up(link_ms, folder, pair):
    with _link(link_ms, pair) as proxy:
        subprocess.run(
            [sys.executable, _BOARDS / "run_example.py", _ROOT / "examples" / "deep_sleep.py"],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (_BOARDS, _ROOT / "tests", _ROOT))),
                "BOARD": "raspberry_pi_pico_w",
                "BOARD_CLOCK": "unset",
                "BOARD_DRIVE": folder,
                "THINGSBOARD_HOST": "127.0.0.1",
                "THINGSBOARD_PORT": str(proxy.port),
                "THINGSBOARD_TOKEN": rig.TOKEN,
                "THINGSBOARD_TLS": "/ca.pem" if pair else "0",
            },
            check=True,
            capture_output=True,
            timeout=_TIMEOUT_S,
        )
    return WakeUp(proxy.transcript)


def _of_peer(link_ms, pair, authority):
    options = {}
    if pair:
        options = {"is_ssl": True, "ssl_context": ssl.create_default_context(cafile=authority)}
    with _link(link_ms, pair) as proxy:
        mqtt = rig.new_peer(proxy.port, client_id=_CLIENT_ID, **options)
        mqtt.connect()
        mqtt.publish(rig.TELEMETRY, _PAYLOAD, False, 1)
        mqtt.disconnect()
    return WakeUp(proxy.transcript)
