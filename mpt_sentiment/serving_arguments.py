"""Arguments of the server and of the demo."""

import argparse
import dataclasses
import ipaddress
import os
from collections.abc import Sequence
from typing import TypeVar

from mpt_sentiment.arguments import argument, make_parser

API_KEY = "MPT_API_KEY"
Arguments = TypeVar("Arguments")


@dataclasses.dataclass
class ServeArguments:
    """Address and limits of the server.

    Raises:
        ValueError: a limit that is not positive, a port out of range, or an address beyond loopback without a key.
    """

    host: str = argument(f"Address; beyond loopback, the environment variable {API_KEY} must hold a key.", "127.0.0.1")
    port: int = argument("Port; 0 for any free one.", 8000)
    device: str | None = argument("E.g. cpu or cuda:1; by default an accelerator if there is one.")
    max_batch_size: int = argument("Posts per forward pass.", 32)
    max_queue: int = argument("Posts and requests in work at a time; more are answered 429.", 256)
    max_posts: int = argument("Posts per request.", 64)
    max_body_mb: float = argument("Size of a request in MiB; more is answered 413.", 16.0)
    max_megapixels: float = argument("Pixels of an image, in millions.", 50.0)
    max_text_length: int = argument("Characters of a text or a rationale.", 20_000)
    timeout: float = argument("Seconds until a request is answered 408.", 30.0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.startswith("max_") or field.name == "timeout":
                if not 0 < value < float("inf"):
                    raise ValueError(f"--{field.name} must be positive, got {value}.")
        if not 0 <= self.port < 65536:
            raise ValueError(f"--port must be between 0 and 65535, got {self.port}.")
        if self.max_posts > self.max_queue:
            raise ValueError(f"--max_queue must be at least --max_posts, {self.max_posts}, got {self.max_queue}.")
        if not is_loopback(self.host) and not api_key():
            raise ValueError(
                f"--host {self.host} accepts requests from other machines: set the environment variable {API_KEY} to "
                "a key that clients send, or use --host 127.0.0.1."
            )


def api_key() -> str | None:
    """Return the key that clients must send, from the environment."""
    return os.environ.get(API_KEY, "").strip() or None


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


@dataclasses.dataclass
class DemoArguments:
    """Address of the demo, and the server that writes rationales.

    Raises:
        ValueError: a port out of range, or options that exclude each other.
    """

    host: str = argument("Address; 0.0.0.0 shows the demo to everyone who reaches this machine.", "127.0.0.1")
    port: int = argument("Port; 0 for any free one.", 7860)
    device: str | None = argument("E.g. cpu or cuda:1; by default an accelerator if there is one.")
    endpoint: str | None = argument("Server that writes rationales; without it they are written by hand.")
    rationale_model: str | None = argument("Name of the model of --endpoint; default as in generate-rationales.")
    api_key_env: str | None = argument("Name of the environment variable with the key of --endpoint.")
    space: str | None = argument("Folder to write for a Space of the Hub, instead of starting the demo.")

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ValueError(f"--port must be between 0 and 65535, got {self.port}.")
        given = [name for name in ("rationale_model", "api_key_env") if getattr(self, name) is not None]
        if given and self.endpoint is None:
            raise ValueError(f"--{given[0]} needs --endpoint, the address of the server that writes rationales.")
        if self.space is not None and self.endpoint is not None:
            raise ValueError("--space and --endpoint exclude each other: in a Space, rationales are written by hand.")


def parse_folder(
    arguments: type[Arguments], argv: Sequence[str], command: str, description: str
) -> tuple[str, Arguments]:
    """Parse a command line with the folder of a model.

    Raises:
        ValueError: unknown or unusable arguments.
    """
    parser = make_parser([arguments], command, description)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", metavar="FOLDER", help="Folder of a trained model.")
    values = vars(parser.parse_args(list(argv)))
    folder = values.pop("folder")
    return folder, *parser.parse_dict(values)
