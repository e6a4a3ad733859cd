# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A real MQTT broker for the tests: one mosquitto process with four listeners on free ports.

It proves that the client speaks MQTT. It can't play ThingsBoard: all devices share its topics, and
where it wants a password it takes no empty one. An access token alone is for the plain listener.
"""

import base64
import hashlib
import os
import subprocess
import time
from pathlib import Path

from helpers import free_port, is_listening

PASSWORDS = {"user": "pw"}
_START_TIMEOUT_S = 10
_ITERATIONS = 101

_CONFIGURATION = """\
{user}
persistence false
max_queued_messages 0
log_type all
per_listener_settings true
set_tcp_nodelay true

listener {plain} 127.0.0.1
allow_anonymous true

listener {password} 127.0.0.1
allow_anonymous false
password_file {folder}/passwords

listener {tls} 127.0.0.1
allow_anonymous true
cafile {ca}
certfile {server.certificate}
keyfile {server.key}

listener {mutual} 127.0.0.1
cafile {ca}
certfile {server.certificate}
keyfile {server.key}
require_certificate true
use_identity_as_username true
"""


class Mosquitto:
    """Ports *plain* (anyone), *password* (`PASSWORDS`), *tls*, *mutual* (client certificate)."""

    def __init__(self, program, folder, certificates):
        self.folder = Path(folder)
        self.log = self.folder / "mosquitto.log"
        self.plain, self.password, self.tls, self.mutual = (free_port() for _ in range(4))
        (self.folder / "passwords").write_text(
            "".join("%s:%s\n" % (user, _hashed(word)) for user, word in PASSWORDS.items())
        )
        (self.folder / "mosquitto.conf").write_text(self._configuration(certificates))
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log
            )

    def _configuration(self, certificates):
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        return _CONFIGURATION.format(
            # Else it becomes user mosquitto, which may not read the folders of a test run.
            user="user root" if is_root else "",
            folder=self.folder,
            ca=certificates.ca,
            server=certificates.server,
            plain=self.plain,
            password=self.password,
            tls=self.tls,
            mutual=self.mutual,
        )

    def wait_until_up(self):
        """Whether every listener answers; False: it ended, another process has one of the ports."""
        end = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < end and self._process.poll() is None:
            if all(is_listening(p) for p in (self.plain, self.password, self.tls, self.mutual)):
                return self._process.poll() is None
            time.sleep(0.005)
        return False

    def log_text(self):
        return self.log.read_text(errors="replace")

    def close(self):
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)


def start(program, make_folder, certificates, attempts=3):
    """A `Mosquitto` that listens; *make_folder* gives a new empty folder for each attempt."""
    log = ""
    for _ in range(attempts):  # between looking for a free port and binding it, it may be taken
        broker = Mosquitto(program, make_folder(), certificates)
        if broker.wait_until_up():
            return broker
        broker.close()
        log = broker.log_text()
    raise AssertionError("mosquitto did not start:\n" + log)


def _hashed(password):
    """As mosquitto_passwd writes it, which is one more program to find."""
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return "$7$%d$%s$%s" % (_ITERATIONS, _base64(salt), _base64(digest))


def _base64(data):
    return base64.b64encode(data).decode()
