# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A program for a type checker, never run: it refuses the lines that are marked, and no others."""

from typing import Any, Optional

from tb_device_mqtt import TBDeviceMqttClient, TBError, TBRefusedError, TBTimeoutError

client = TBDeviceMqttClient("thingsboard.example", 1883, "TOKEN", keep_alive=30, tls=True)
TBDeviceMqttClient(1883)  # refused
TBDeviceMqttClient("thingsboard.example", keep_alive="30")  # refused
TBDeviceMqttClient.from_settings(queue_size=8).check_for_msg()


@client.rpc("setLamp")
def set_lamp(on: bool) -> "dict[str, bool]":
    return {"lamp": on}


def on_connect(client: TBDeviceMqttClient, user_data: object, flags: int, rc: int) -> None:
    client.send_attributes({"version": "1"})
    client.send_attributes(["version"])  # refused


def on_answer(result: "Optional[dict[str, Any]]", error: Optional[Exception]) -> None:
    if result is not None:
        print(result["shared"])


client.on_connect = on_connect
client.on_state = lambda client, user_data, state, reason: print(state)
client.on_drop = 5  # refused
client.idle = lambda: None
client.idle = 5  # refused
client.user_data = {"any": "thing"}
client.connect_timeout = 2.5
client.request_timeout = "10"  # refused
client.clean_session = False

connected: bool = client.connect(timeout=5)
client.connect("5")  # refused
with client as the_same:
    the_same.check_for_msg()
    the_same.check_for_message()  # refused

try:
    client.connect()
except TBRefusedError as refusal:
    print(refusal.code + 1)
except (TBTimeoutError, TBError, OSError):
    print(client.last_error)

handled: int = client.wait_for_msg(0.5)
text: str = client.check_for_msg()  # refused
sent: bool = client.flush()
message: Optional[int] = client.send_telemetry([{"a": 1}, {"b": 2.5}], quality_of_service=0)
client.send_telemetry({"a": 1}, "0")  # refused
request: int = client.request_attributes(["a"], callback=on_answer, timeout=5)
client.request_attributes("a", timeout="5")  # refused
client.subscribe_to_attribute("interval", (on_answer, "context"))
client.send_rpc_reply("7", {"any": ["thing"]})
client.publish("topic", b"payload", retain=True)
client.publish(b"topic", b"payload")  # refused
client.claim("secret", duration_ms=60000)

state: str = client.state
client.state = 5  # refused
count: int = client.stats["sent"]
client.stats["sent"] = "5"  # refused
interval = client.shared.get("interval", 10)
client.shared = {}  # refused
