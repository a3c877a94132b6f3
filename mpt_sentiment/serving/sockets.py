"""Sockets of servers, and their run until a signal."""

import contextlib
import socket
from typing import Any

import uvicorn


def listening_socket(host: str, port: int) -> socket.socket:
    """Open the socket of a server.

    Args:
        host (`str`): address.
        port (`int`): port; 0 for any free one.

    Raises:
        ValueError: an address in use, or none of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ValueError(
            f"Cannot listen at {host}, port {port}: {error.strerror}. Choose another --port (0 for any free one) or "
            "--host."
        ) from None


def address(sock: socket.socket) -> str:
    """Return the address of a socket as a URL."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_until_stopped(app: Any, sock: socket.socket, seconds: float) -> None:
    """Run an application until SIGTERM or Ctrl-C; requests in work are answered before the end.

    Args:
        app: an ASGI application.
        sock: a listening socket.
        seconds (`float`): time that requests in work have after the signal.
    """
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=int(seconds) + 1)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn repeats the signal after its end
        uvicorn.Server(config).run(sockets=[sock])
