# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A page that lists the devices, for a browser on the same computer. It reloads every 2 seconds.

Any website can make a browser send requests to this server. So a request has to name this server
in Host, which foils a foreign name that resolves to 127.0.0.1 (DNS rebinding), and one that could
change something has to come from this page (Origin).
"""

import asyncio
from html import escape
from time import localtime, strftime

_REQUEST_S = 5  # until a request has to be there
_MAX_HEADER_LINES = 100
_HTTP_PORT = 80  # browsers leave it out

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
        await _answer(board, reader, writer, host)

    server = await asyncio.start_server(answer, host, port)
    return server, "http://%s:%d/" % server.sockets[0].getsockname()[:2]


async def _answer(board, reader, writer, listens_at):
    try:
        request = await asyncio.wait_for(_read_request(reader), _REQUEST_S)
        address, port = writer.get_extra_info("sockname")[:2]
        hosts = own_hosts(port, address, listens_at)
        writer.write(_response(board, request, hosts))
        await writer.drain()
    except (OSError, ValueError, asyncio.TimeoutError):
        pass  # whoever asked is gone, or is no browser
    finally:
        writer.close()


class _Request:
    """The head of a request."""

    def __init__(self, request_line, headers):
        method, _, rest = request_line.partition(" ")
        self.method = method
        self.path = rest.partition(" ")[0].partition("?")[0]
        self.headers = headers  # name in small letters: value


async def _read_request(reader):
    """Read a request up to its empty line."""
    first, headers = await _read_line(reader), {}
    for _ in range(_MAX_HEADER_LINES):
        line = await _read_line(reader)
        if not line:
            return _Request(first, headers)
        name, _, value = line.partition(":")
        name = name.strip().lower()
        if name in headers:  # which of the two would count?
            value = ""
        headers[name] = value.strip()
    raise ValueError("too many header lines")


async def _read_line(reader):
    return (await reader.readline()).decode("latin-1").rstrip("\r\n")


def own_hosts(port, *addresses):
    """What Host may be: the names of this computer, and *addresses*, each with its port."""
    names = ["127.0.0.1", "localhost"]
    names += ["[%s]" % address if ":" in address else address for address in addresses]
    hosts = {"%s:%d" % (name, port) for name in names}
    return hosts | set(names) if port == _HTTP_PORT else hosts


def _response(board, request, hosts):
    if not _is_from_here(request, hosts):
        return _http("403 Forbidden", "Not from here.\n", "text/plain")
    if request.method != "GET":
        return _http("405 Method Not Allowed", "Only GET.\n", "text/plain")
    if request.path != "/":
        return _http("404 Not Found", "Not found.\n", "text/plain")
    return _http("200 OK", render(board.devices.values()), "text/html")


def _is_from_here(request, hosts):
    """Whether a request names this server, and one to change something comes from its page.

    Without Origin it is no browser that asks for another site: those send it with each POST.
    """
    if request.headers.get("host", "").lower() not in hosts:
        return False
    origin = request.headers.get("origin")
    if request.method in ("GET", "HEAD") or origin is None:
        return True
    return origin.lower() in {"http://" + host for host in hosts}


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
