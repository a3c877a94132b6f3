"""A bad input: its files, the command that reads them, and the expected message."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Words of a command that the test replaces by paths: the case's folder, and a tiny trained model.
FOLDER, MODEL = "FOLDER", "MODEL"

Call = Callable[[Path], Any]


@dataclasses.dataclass(frozen=True)
class BadInput:
    """One row of the table of bad inputs.

    Attributes:
        name (`str`): name of the test.
        run (`list[str]` or callable):
            Command line after `mpt-sentiment`, where FOLDER and MODEL are replaced by paths; or a call of the Python
            interface with the case's folder.
        words (`tuple[str]`): each must occur in the message of the error, or (exit code 0) in the output and the log.
        files (`dict[str, bytes or str]` or callable): files by relative path, or a function that writes them.
        exit_code (`int`): 0 also for a call that returns, 1 for one that raises; the command's code else.
        advice (`list[str]` or callable, *optional*): advice of the message as a command or call; it must succeed.
        kept (`tuple[str]`): relative paths of results that must exist afterwards.
    """

    name: str
    run: list[str] | Call
    words: tuple[str, ...]
    files: dict[str, bytes | str] | Callable[[Path], Any] = dataclasses.field(default_factory=dict)
    exit_code: int = 1
    advice: list[str] | Call | None = None
    kept: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write the files of the case."""
        if callable(self.files):
            self.files(folder)
            return
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
