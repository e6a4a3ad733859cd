# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A web server on this computer."""

import threading
from http.server import ThreadingHTTPServer


class WebSite:
    """Serves on *port* of 127.0.0.1 while its ``with`` block lasts.

    Its requests are handled by *handler*, a `BaseHTTPRequestHandler`, in whose ``self.server.site``
    it stands.
    """

    def __init__(self, handler):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.site = self
        self.port = self._server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_exception):
        self._server.shutdown()
        self._server.server_close()
