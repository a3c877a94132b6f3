"""Server of a model until it is stopped."""

import contextlib
import socket
from pathlib import Path

import uvicorn

from mpt_sentiment.predicting import load_pipeline
from mpt_sentiment.serving.app import create_app
from mpt_sentiment.serving_arguments import ServeArguments


def serve(folder: str | Path, args: ServeArguments | None = None) -> None:
    """Serve a model until SIGTERM or Ctrl-C; requests in work are answered before the end.

    Args:
        folder (`str` or `Path`): output folder of `train`, whose code is run.
        args ([`ServeArguments`], *optional*): address and limits.

    Raises:
        ValueError: a folder without a model, an unusable device, or an address that cannot be used.
    """
    args = args or ServeArguments()
    with listening_socket(args.host, args.port) as sock:
        app = create_app(load_pipeline(folder, args.device), args)
        host = f"[{args.host}]" if ":" in args.host else args.host
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=int(args.timeout) + 1
        )
        print(f"Serving {folder} at http://{host}:{sock.getsockname()[1]}, documented at /docs", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn repeats the signal after its end
            uvicorn.Server(config).run(sockets=[sock])
    print("Stopped; every request in work was answered.", flush=True)


def listening_socket(host: str, port: int) -> socket.socket:
    """Open the socket of a server.

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
