"""Ports for processes that are told where to listen a while before they do."""

import itertools
import os
import socket

_FIRST, _PORTS = 20_000, 12_000
"""Below what the system gives to whoever asks for any port, and connects from: nobody but who is
told to listens there. Where to begin depends on the process, so that two that test at the same time
keep out of each other's way."""

_numbers = itertools.count(os.getpid() * 97)


def free_port() -> int:
    """Return a port on the loopback that nobody listens on, another one each time."""
    while True:
        port = _FIRST + next(_numbers) % _PORTS
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
