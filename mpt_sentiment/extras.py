"""Packages that an extra of the installation brings."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Name the extra of a package that cannot be imported.

    Args:
        extra (`str`): name of the extra.
        what (`str`): command or class that needs it.

    Raises:
        ImportError: an import of the block failed.
    """
    try:
        yield
    except ImportError as error:
        message = f"`{what}` needs {error.name}: pip install 'mpt-sentiment[{extra}]'"
        raise ImportError(message, name=error.name) from None
