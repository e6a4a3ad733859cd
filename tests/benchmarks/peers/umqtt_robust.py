# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""umqtt.robust on MicroPython: it connects again by itself, inside of its methods."""

from umqtt.robust import MQTTClient
from umqtt_simple import Umqtt
from vocabulary import PAUSE_MS, run


class UmqttRobust(Umqtt):
    kind = MQTTClient

    def open(self, *arguments):
        super().open(*arguments)
        if self.is_tuned:
            self._client.DELAY = PAUSE_MS / 1000


run(UmqttRobust())
