"""Logging and progress bars of the commands."""

import logging
import warnings

from datasets import disable_progress_bars
from transformers.utils.logging import disable_progress_bar

NOISY = ("transformers", "datasets", "httpx", "httpx2", "filelock", "matplotlib", "PIL", "huggingface_hub")


def set_up_logging(*, verbose: bool = False) -> None:
    """Show messages without a prefix: warnings, and the package's progress if `verbose`."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.simplefilter("ignore", FutureWarning)  # of libraries, for their developers


def hide_progress_bars() -> None:
    """Hide the bars of libraries, of loading weights and reading posts."""
    disable_progress_bar()
    disable_progress_bars()
