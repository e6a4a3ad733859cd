# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A page that lists the devices, for a browser on the same computer. It reloads every 2 seconds."""

import asyncio
from html import escape
from time import localtime, strftime

_REQUEST_S = 5  # until a request has to be there
_MAX_HEADER_LINES = 100

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="refresh" content="2">
<title>Local ThingsBoard stand-in</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; }}
th, td {{ border: 1px solid #bbb; padding: .4em .8em; text-align: left; vertical-align: top; }}
.online {{ color: #080; }}
.offline {{ color: #999; }}
</style>
</head>
<body>
<h1>Devices</h1>
<table>
<tr><th>Device</th><th>State</th><th>Client attributes</th><th>Shared attributes</th>
<th>Last telemetry</th></tr>
{rows}
</table>
</body>
</html>
"""


async def serve(board, host, port):
    """Serve the page; return the asyncio server and the URL.

    :param ThingsBoard board: whose devices are shown; the page runs on its loop
    :raises OSError: the port is taken
    """

    async def answer(reader, writer):
        await _answer(board, reader, writer)

    server = await asyncio.start_server(answer, host, port)
    return server, "http://%s:%d/" % server.sockets[0].getsockname()[:2]


async def _answer(board, reader, writer):
    try:
        request_line = await asyncio.wait_for(_read_head(reader), _REQUEST_S)
        writer.write(_response(board, request_line))
        await writer.drain()
    except (OSError, ValueError, asyncio.TimeoutError):
        pass  # whoever asked is gone, or is no browser
    finally:
        writer.close()


async def _read_head(reader):
    """Read a request up to its empty line; return the first line."""
    first = await reader.readline()
    for _ in range(_MAX_HEADER_LINES):
        if (await reader.readline()) in (b"\r\n", b"\n", b""):
            return first
    raise ValueError("too many header lines")


def _response(board, request_line):
    method, _, rest = request_line.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method != b"GET":
        return _http("405 Method Not Allowed", "Only GET.\n", "text/plain")
    if path != b"/":
        return _http("404 Not Found", "Not found.\n", "text/plain")
    return _http("200 OK", render(board.devices.values()), "text/html")


def _http(status, text, content_type):
    body = text.encode("utf-8", "replace")
    head = (
        "HTTP/1.1 %s\r\nContent-Type: %s; charset=utf-8\r\nContent-Length: %d\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return (head % (status, content_type, len(body))).encode() + body


def render(devices):
    """Build the page as text from device records."""
    return _PAGE.format(rows="\n".join(_row(device) for device in devices))


def _row(device):
    state = "offline" if device.session is None else "online"
    cells = (
        escape(device.name),
        '<span class="%s">%s</span>' % (state, state),
        _values(device.client_attributes),
        _values(device.shared_attributes),
        _last_telemetry(device),
    )
    return "<tr>%s</tr>" % "".join("<td>%s</td>" % cell for cell in cells)


def _last_telemetry(device):
    if not device.telemetry:
        return ""
    ts_ms, values = device.telemetry[-1]
    return "%s<br>%s" % (_clock_time(ts_ms), _values(values))


def _clock_time(ts_ms):
    try:
        return strftime("%Y-%m-%d %H:%M:%S", localtime(ts_ms / 1000))
    except (OverflowError, ValueError, OSError):  # a device may send any ts
        return escape(str(ts_ms))


def _values(values):
    return "<br>".join("%s: %s" % (escape(key), escape(str(values[key]))) for key in values)
