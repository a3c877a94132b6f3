"""Address of a server: the paths of its API, and its name in messages."""

from __future__ import annotations

import dataclasses
import os
import re
import urllib.request
from urllib.parse import SplitResult, urlsplit, urlunsplit

from dataset_scripts.reading.option_names import field

_ENDINGS = re.compile(r"/(?:chat/completions|completions|models|responses)$")
_VERSION = re.compile(r"v\d+(?:(?:alpha|beta)\d*)?")


@dataclasses.dataclass(frozen=True)
class Address:
    """Address of an OpenAI-compatible API.

    An address is used as given if its path holds a version (`/api/v3`, `/v1beta/openai`), if it ends in
    `/chat/completions`, or if it has a query (`?api-version=…`). Otherwise `/v1` is appended.

    Args:
        given: address as the user wrote it.

    Raises:
        ValueError: it is not an http(s) URL with a host.
    """

    given: str
    _parts: SplitResult = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = _split(self.given.strip())
        if parts is None:
            host = re.sub(r"^\w*:?/+", "", self.given.strip()).split("@")[-1].partition("?")[0][:80]
            example = f"http://{host}" if re.fullmatch(r"[\w./:-]+", host) else ""
            advice = field("endpoint", example if _split(example) else "http://localhost:8000")
            raise ValueError(f"The endpoint must be an http(s) URL, got {host or self.given[:80]!r}. Use {advice}.")
        path = parts.path.rstrip("/")
        base = _ENDINGS.sub("", path)
        whole = base != path or parts.query or any(map(_VERSION.fullmatch, base.split("/")))
        parts = parts._replace(path=base if whole else f"{base}/v1", fragment="")
        object.__setattr__(self, "_parts", parts)

    @property
    def name(self) -> str:
        """Address for messages, without `/v1`, credentials and query."""
        return self._without_secrets(self._parts._replace(path=self._parts.path.removesuffix("/v1")))

    @property
    def host(self) -> str:
        return self._parts.hostname or ""

    @property
    def https(self) -> bool:
        return self._parts.scheme == "https"

    @property
    def is_azure(self) -> bool:
        """True if the query has `api-version`; Azure expects the key in a header of its own."""
        return "api-version=" in self._parts.query

    def url(self, path: str) -> str:
        """Return the URL of a path of the API, such as `/chat/completions`."""
        return urlunsplit(self._parts._replace(path=self._parts.path + path))

    def server_url(self, path: str) -> str:
        """Return the URL of a path outside the API, such as `/health`."""
        folders = self._parts.path.split("/")
        version = next((index for index, folder in enumerate(folders) if _VERSION.fullmatch(folder)), len(folders))
        return urlunsplit(self._parts._replace(path="/".join(folders[:version]) + path))

    def url_without_query(self, path: str) -> str:
        """Return the URL of a path of the API for a message."""
        return self._without_secrets(self._parts._replace(path=self._parts.path + path))

    def other_scheme(self) -> str:
        """Write the option with `https` instead of `http`, or the reverse."""
        parts = self._parts._replace(scheme="http" if self.https else "https")
        return field("endpoint", self._without_secrets(parts))

    def redirected(self, path: str, location: str) -> str | None:
        """Write the option with the address to which a request for `path` was redirected.

        Returns:
            `None` if the redirection leads to another path, for example a login page.
        """
        parts = urlsplit(urllib.parse.urljoin(self.url(path), location))
        if not parts.path.endswith(path):
            return None
        return field("endpoint", self._without_secrets(parts._replace(path=parts.path.removesuffix(path))))

    def proxy_hint(self) -> str:
        """Name the environment variable of the proxy for this address; empty without one."""
        proxies = urllib.request.getproxies()
        scheme = next((name for name in (self._parts.scheme, "all") if proxies.get(name)), None)
        if scheme is None or urllib.request.proxy_bypass(self.host):
            return ""
        names = (f"{scheme}_proxy".upper(), f"{scheme}_proxy")
        variable = next((name for name in names if os.environ.get(name)), "the proxy of the system")
        bypassed = ",".join(filter(None, (proxies.get("no"), self.host)))
        return f" The request goes through {variable}; to reach the server directly, set NO_PROXY={bypassed}."

    def _without_secrets(self, parts: SplitResult) -> str:
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def _split(url: str) -> SplitResult | None:
    """Split an http(s) URL with a host; `None` for another string."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and not re.search(r"\s", parts.netloc)
        return parts if valid and parts.port != 0 else None
    except ValueError:  # the port is no number below 65,536, or the brackets of an IPv6 address do not match
        return None
