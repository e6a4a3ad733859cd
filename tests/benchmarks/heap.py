# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What clients take of the memory of a 32-bit board, side by side; `memory` has ours in detail."""

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from . import drivers, environment
from .interpreters import LIBRARY, MODULES, NAME, Board, make_library, source
from .tables import LESS, Column, Comparison, LeftOut

_FIRMWARE = "import binascii, errno, json, random, struct, time"  # there without any client
_READY = "import loopback, streams\nsys.modules['select'] = loopback\npool = loopback.Pool()"
_MINIMQTT = MODULES[: MODULES.index(LIBRARY)]


class _Client(NamedTuple):
    """*modules*: what it imports, in this order; *given*: those that `package` brings."""

    modules: tuple
    code: str
    package: str = ""
    given: tuple = ()


_CLIENTS = {
    "ours": _Client(
        MODULES,
        """options = {"socket_pool": pool, "logger": False}
client = tb_device_mqtt.TBDeviceMqttClient("board", 1883, "TOKEN", **options)
assert client.connect(1)
client.send_telemetry({"temperature": 21.5})
assert client.flush(1)""",
    ),
    "MiniMQTT": _Client(
        _MINIMQTT,
        """from adafruit_minimqtt.adafruit_minimqtt import MQTT
client = MQTT(broker="board", port=1883, username="TOKEN", password="", socket_pool=pool)
client.connect()
client.publish("v1/devices/me/telemetry", '{"temperature":21.5}', False, 1)""",
    ),
    "CircuitPython SDK": _Client(
        (*_MINIMQTT, LIBRARY),
        """class Network:
    def get_socket_pool(self): return pool
    def get_ssl_context(self): return None
client = tb_device_mqtt.TBDeviceMqttClient("board", 1883, "TOKEN", network_adapter=Network())
client.connect()
assert client.connected
client.send_telemetry({"temperature": 21.5})""",
        drivers.SDK,
        (LIBRARY,),
    ),
    "chumicro-mqtt": _Client(
        (
            "chumicro_timing.ticks",
            "chumicro_timing.deadline",
            "chumicro_timing.waits",
            "chumicro_timing.__init__",
            "chumicro_mqtt._wire",
            "chumicro_mqtt.client",
            "chumicro_mqtt.__init__",
        ),
        """from chumicro_mqtt import MQTTClient
acknowledged = []
client = MQTTClient(streams.socket(), client_id="board", username="TOKEN")
client.connect()
for count in range(100):
    client.handle(count)
client.publish("v1/devices/me/telemetry", '{"temperature":21.5}', qos=1,
    on_publish=lambda *_: acknowledged.append(1))
for count in range(100):
    client.handle(100 + count)
assert acknowledged""",
        "chumicro-mqtt",
        ("chumicro",),
    ),
    "umqtt.simple": _Client(
        ("umqtt.simple",),
        """from umqtt.simple import MQTTClient
client = MQTTClient("board", "board", 1883, user="TOKEN", password="")
client.connect()
client.publish("v1/devices/me/telemetry", '{"temperature":21.5}', qos=1)""",
        "umqtt",
        ("umqtt",),
    ),
}


def heap(clients=tuple(_CLIENTS), may_install=True):
    """How much of the memory of a 32-bit board does each client take?"""
    board = Board.find(may_install)
    if board is None:
        return LeftOut(Board.what_is_missing())
    answers: dict[str, dict] = {}
    left_out = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in clients:
            try:
                answers[name] = _measure(board, Path(folder), _CLIENTS[name])
            except environment.Missing as missing:
                left_out[name] = str(missing)
            except subprocess.CalledProcessError:
                answers[name] = {None: "does not run"}
    return Comparison(
        "heap",
        "Memory of a 32-bit board",
        LESS,
        [Column("import", "B"), Column("connected client", "B"), Column("both", "B")],
        answers,
        "Heap after gc.collect(), %s, from .mpy: all modules that the client needs, and then the "
        "client, connected, one message sent, at QoS 1 acknowledged; buffers included, TLS apart. "
        "chumicro-mqtt gets a connected socket: what it dials and connects again with comes on "
        "top." % NAME,
        left_out=left_out,
    )


def _measure(board, folder, client):
    given = drivers.folder_of(client.package) if client.package else None
    sources = {
        module: _source(given, module)
        if module.startswith(client.given) and given
        else source(module)
        for module in client.modules
    }
    library = make_library(folder, ".mpy", sources)
    imports = "\n".join("import " + module.replace(".__init__", "") for module in client.modules)
    figures = board.run(library, [_FIRMWARE, _READY, imports, client.code])
    _, _, before, imported, connected = (each.used for each in figures)
    return {
        "import": imported - before,
        "connected client": connected - imported,
        "both": connected - before,
    }


def _source(folder, module):
    path = Path(folder).joinpath(*module.split("."))
    with contextlib.suppress(FileNotFoundError):
        return path.with_suffix(".py").read_text(encoding="utf-8")
    raise environment.Missing("%s has no source of %s" % (folder, module))
