# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Run the stand-in by hand, from the directory ``examples``.

``python3 -m local_server --port 1884 --page-port 8080 --device Roof=TOKEN``
"""

import argparse
import threading

from .server import LocalServer


def _parse_arguments():
    parser = argparse.ArgumentParser("python3 -m local_server", description="ThingsBoard stand-in")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="for MQTT (default: a free one)")
    parser.add_argument("--page-port", type=int, default=0, help="for the page (same)")
    parser.add_argument(
        "--device",
        action="append",
        type=_name_and_token,
        metavar="NAME=TOKEN",
        help="may be repeated (default: Device=TOKEN)",
    )
    return parser.parse_args()


def _name_and_token(text):
    name, separator, token = text.partition("=")
    if not (name and separator and token):
        raise argparse.ArgumentTypeError("not NAME=TOKEN: %s" % text)
    return name, token


def main():
    """Run until Ctrl-C."""
    arguments = _parse_arguments()
    with LocalServer(arguments.port, page_port=arguments.page_port, host=arguments.host) as server:
        for name, token in arguments.device or [("Device", "TOKEN")]:
            server.add_device(name, token)
        text = "MQTT: %s:%d, page: %s, Ctrl-C ends it"
        print(text % (arguments.host, server.port, server.url), flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
