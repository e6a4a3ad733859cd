# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A board's Web Workflow, as far as circup uses it; a folder of this machine is its drive.

CircuitPython, docs/workflows.md; server: supervisor/shared/web_workflow/web_workflow.c. Left out:
mDNS and the way by circuitpython.local, the serial console, the pages for a browser.
"""

import base64
import json
import os
import shutil
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote

from circup.website import WebSite

BLOCK_BYTES = 512
Request = namedtuple("Request", "method path status")


class WebWorkflow(WebSite):
    """Serves *folder* on *port* of 127.0.0.1 while its ``with`` block lasts.

    *password* None: CIRCUITPY_WEB_API_PASSWORD is not set. *writable* False: a computer holds the
    drive by USB. *size_bytes*: of the drive. *requests*: all so far.
    """

    def __init__(self, folder, version, password, writable=True):
        self.folder, self.version, self.password = Path(folder).resolve(), version, password
        self.writable, self.size_bytes = writable, 1024 * 1024
        self.requests = []
        self.lock = threading.Lock()  # a board serves one request at a time
        super().__init__(_Handler)

    def authorization(self):
        """The one that is let in: the user is empty."""
        return "Basic " + base64.b64encode(b":" + self.password.encode()).decode()

    def path_of(self, url_path):
        """The file behind ``/fs/...``, or None for one outside of the drive."""
        path = Path(os.path.normpath(self.folder / unquote(url_path)[len("/fs/") :].strip("/")))
        return path if path == self.folder or self.folder in path.parents else None

    def used_blocks(self):
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return sum(-(-path.stat().st_size // BLOCK_BYTES) for path in files)

    def leave_room(self, room_bytes):
        """Make it a drive that has so much room left."""
        self.size_bytes = self.used_blocks() * BLOCK_BYTES + room_bytes

    def disk(self):
        total = self.size_bytes // BLOCK_BYTES
        return {
            "free": total - self.used_blocks(),
            "total": total,
            "block_size": BLOCK_BYTES,
            "writable": self.writable,
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def board(self):
        return self.server.site

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self._serve({True: self._list_folder, False: self._read_file})

    def do_PUT(self):
        self._serve({True: self._make_folder, False: self._write_file})

    def do_DELETE(self):
        self._serve({True: self._delete, False: self._delete})

    def do_MOVE(self):
        self._serve({True: self._move, False: self._move})

    def _serve(self, actions):
        self.close_connection = True  # as the firmware does, which does not announce it
        self._body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.board.lock:
            if self.path == "/cp/version.json" and self.command == "GET":
                return self._send_json(self._version())
            if not self.path.startswith("/fs/"):
                return self._answer(404)
            if self.board.password is None:
                return self._answer(403)
            if self.headers.get("Authorization") != self.board.authorization():
                return self._answer(401)
            path = self.board.path_of(self.path)
            return actions[self.path.endswith("/")](path) if path else self._answer(404)

    # --- answers

    def _answer(self, status, body=b"", **headers):
        self.board.requests.append(Request(self.command, self.path, status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Transfer_Encoding" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_json(self, value):
        body = json.dumps(value).encode()
        chunks = b"".join(b"%X\r\n%s\r\n" % (len(c), c) for c in (body[:20], body[20:], b""))
        self._answer(200, chunks, Content_Type="application/json", Transfer_Encoding="chunked")

    def _version(self):
        return {
            "web_api_version": 4,
            "version": self.board.version,
            "build_date": "2026-01-01",
            "board_name": "Raspberry Pi Pico W",
            "mcu_name": "rp2040",
            "board_id": "raspberry_pi_pico_w",
            "creator_id": 0,
            "creation_id": 0,
            "hostname": "cpy-000000",
            "port": self.board.port,
            "ip": "127.0.0.1",
        }

    # --- the drive

    def _list_folder(self, path):
        # Without this header the firmware sends a page for a browser.
        if not path.is_dir() or self.headers.get("Accept") != "application/json":
            return self._answer(404)
        files = []
        for entry in os.scandir(path):
            status = entry.stat()
            files.append(
                {
                    "name": entry.name,
                    "directory": entry.is_dir(),
                    "modified_ns": status.st_mtime_ns,
                    "file_size": 0 if entry.is_dir() else status.st_size,
                }
            )
        return self._send_json(dict(self.board.disk(), files=files))

    def _read_file(self, path):
        if not path.is_file():
            return self._answer(404)
        return self._answer(200, path.read_bytes(), Content_Type="application/octet-stream")

    def _make_folder(self, path):
        if path.exists():  # looked at first, also when nothing can be written
            return self._answer(204)
        if not self.board.writable:
            return self._answer(409)
        path.mkdir(parents=True)
        return self._answer(201)

    def _write_file(self, path):
        disk = self.board.disk()
        if not self.board.writable:
            return self._answer(409, b"USB storage active.")
        if not path.parent.is_dir():
            return self._answer(404)
        if len(self._body) > disk["free"] * disk["block_size"]:
            return self._answer(413)
        status = 204 if path.exists() else 201
        path.write_bytes(self._body)
        return self._answer(status)

    def _delete(self, path):
        if not self.board.writable:
            return self._answer(409)
        if not path.exists():
            return self._answer(404)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        return self._answer(204)

    def _move(self, path):
        target = self.board.path_of(self.headers.get("X-Destination") or "/fs/")
        if not self.board.writable:
            return self._answer(409)
        if not target or not path.exists() or not target.parent.is_dir():
            return self._answer(404)
        if target.exists():
            return self._answer(412)
        path.rename(target)
        return self._answer(201)
