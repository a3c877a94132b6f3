"""Server of a model until it is stopped."""

from pathlib import Path

from mpt_sentiment.predicting import load_pipeline
from mpt_sentiment.serving.app import create_app
from mpt_sentiment.serving.sockets import address, listening_socket, run_until_stopped
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
        print(f"Serving {folder} at {address(sock)}, documented at {address(sock)}/docs", flush=True)
        run_until_stopped(app, sock, args.timeout)
    print("Stopped.", flush=True)
