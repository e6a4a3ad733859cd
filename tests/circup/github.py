# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""github.com, as far as circup asks it: which release is the latest, and its files.

circup's own HTTP client leads us here: it takes a proxy and an authority from the environment. So
nothing of circup is replaced, and whatever else it looks for on the internet is refused.
"""

import ssl
from collections import namedtuple
from http.server import BaseHTTPRequestHandler

import trustme

from circup.website import WebSite

HOST = "github.com"
FIRMWARE = "adafruit/circuitpython"
FIRMWARE_TAG = "10.3.1"
Request = namedtuple("Request", "method path status")


class GitHub(WebSite):
    """Serves *releases* (`seed.Releases`) while its ``with`` block lasts.

    *variables*: what the environment of circup has to hold. *requests*: all so far; *refused*:
    other hosts that were asked for.
    """

    def __init__(self, releases, folder):
        self.releases = releases
        self.requests, self.refused = [], set()
        authority = trustme.CA()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(self.tls)
        authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        super().__init__(_Proxy)
        self.variables = {
            "HTTPS_PROXY": "http://127.0.0.1:%d" % self.port,
            "REQUESTS_CA_BUNDLE": str(folder / "authority.pem"),
        }


class _Proxy(BaseHTTPRequestHandler):
    """First the proxy, then, behind TLS on the same connection, the site."""

    protocol_version = "HTTP/1.1"

    @property
    def github(self):
        return self.server.site

    def log_message(self, *arguments):
        pass

    def do_CONNECT(self):
        host, _, _ = self.path.partition(":")
        if host != HOST:
            self.github.refused.add(host)
            self._answer(403)
            self.close_connection = True
            return
        self.send_response(200)
        self.end_headers()
        self.connection = self.github.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def finish(self):
        super().finish()
        self.connection.close()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        """A repository, its ``/releases/latest`` or its ``/releases/download/TAG/FILE``."""
        words = self.path.strip("/").split("/")
        repo, rest = "/".join(words[:2]), words[2:]
        tag = FIRMWARE_TAG if repo == FIRMWARE else self.github.releases.latest_tag(repo)
        if tag is None:
            return self._answer(404)
        if not rest:
            return self._answer(200)
        if rest == ["releases", "latest"]:
            location = "https://%s/%s/releases/tag/%s" % (HOST, repo, tag)
            return self._answer(302, Location=location)
        path = self.github.releases.folder.joinpath(repo, *rest[2:])
        if rest[:2] != ["releases", "download"] or not path.is_file():
            return self._answer(404)
        return self._answer(200, path.read_bytes())

    def _answer(self, status, body=b"", **headers):
        if self.command != "CONNECT":
            self.github.requests.append(Request(self.command, self.path, status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
