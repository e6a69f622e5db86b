"""Ports that nobody listens at."""

import socket
from contextlib import ExitStack


def free_ports(number: int) -> list[int]:
    """So many ports, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def free_port() -> int:
    return free_ports(1)[0]
