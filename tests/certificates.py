# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Certificates for the tests, made anew for every run: nothing in the repository expires."""

import ssl
from collections import namedtuple
from datetime import datetime, timedelta, timezone

import trustme


class Pair(namedtuple("Pair", "certificate key")):
    """Paths of two PEM files, in the order of ``SSLContext.load_cert_chain(*pair)``."""

    def server_context(self):
        """For a server that shows this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self)
        return context


class Certificates:
    """Paths as str; each pair but *stranger* is signed by *ca*.

    *ca*, *other_ca*: certificate authorities, the second one signed nothing that a server shows.
    *server*: for localhost and 127.0.0.1; *wrong_host*: for another name; *expired*: since a day.
    *client*: common name "device-1"; *stranger*: a client of *other_ca*.
    """

    def __init__(self, folder):
        self._folder = folder
        ca, other_ca = trustme.CA(), trustme.CA()
        self.ca = self._write("ca.pem", ca.cert_pem)
        self.other_ca = self._write("other_ca.pem", other_ca.cert_pem)
        here = ("localhost", "127.0.0.1")
        now = datetime.now(timezone.utc)
        then = {"not_before": now - timedelta(days=30), "not_after": now - timedelta(days=1)}
        self.server = self._issue("server", ca, *here)
        self.wrong_host = self._issue("wrong_host", ca, "elsewhere.invalid")
        self.expired = self._issue("expired", ca, *here, **then)
        self.client = self._issue("client", ca, "device-1", common_name="device-1")
        self.stranger = self._issue("stranger", other_ca, "device-2", common_name="device-2")

    def _issue(self, name, ca, *identities, **options):
        made = ca.issue_cert(*identities, **options)
        return Pair(
            self._write(name + ".pem", *made.cert_chain_pems),
            self._write(name + ".key", made.private_key_pem),
        )

    def _write(self, name, *blobs):
        path = self._folder / name
        path.write_bytes(b"".join(blob.bytes() for blob in blobs))
        return str(path)
