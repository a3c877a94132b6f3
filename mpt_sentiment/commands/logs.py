"""Logging of the commands."""

import logging
import warnings

NOISY = ("transformers", "datasets", "httpx", "httpx2", "filelock", "matplotlib", "PIL", "huggingface_hub")


def set_up_logging(*, verbose: bool = False) -> None:
    """Show messages without a prefix: warnings, and the package's progress if `verbose`."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.simplefilter("ignore", FutureWarning)  # of libraries, for their developers
