"""Command `features`: list or delete the stored outputs of frozen encoders.

    mpt-sentiment features                  # encoders, entries, size and last use
    mpt-sentiment features --prune 30       # deletes those of encoders that were not used for 30 days
    mpt-sentiment features --prune all

A training that needs deleted outputs computes them again.
"""

import dataclasses
import datetime
import math
from collections.abc import Sequence

from mpt_sentiment.arguments import argument, parse


@dataclasses.dataclass
class FeatureArguments:
    """The store of outputs of frozen encoders.

    Raises:
        ValueError: a `prune` that is no number of days.
    """

    feature_store: str = argument("Folder of the store, or auto: in the folder of Hugging Face's caches.", "auto")
    prune: str | None = argument("Delete encoders that were not used for so many days, or all.")

    def __post_init__(self) -> None:
        if self.prune is not None:
            self.days()

    def days(self) -> float:
        """Return the number of days without use, 0 for `all`."""
        try:
            days = 0.0 if self.prune == "all" else float(self.prune)
        except ValueError:
            days = math.nan
        if not days >= 0:
            raise ValueError(f"--prune must be a number of days or all, got {self.prune!r}.")
        return days


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: unusable arguments, or a folder that is no store.
    """
    (args,) = parse((FeatureArguments,), argv, command="features")
    from modeling_mpt.features.pruning import prune, stored_encoders
    from modeling_mpt.features.store import store_at

    store = store_at(args.feature_store)
    encoders = stored_encoders(store.folder)
    if args.prune is not None:
        encoders = prune(encoders, args.days())
    print(f"{'encoder':<44}{'entries':>10}{'MB':>10}  last use")
    for each in encoders:
        used = datetime.datetime.fromtimestamp(each.used).strftime("%Y-%m-%d %H:%M")
        print(f"{each.title:<44}{each.entries:>10,}{each.size / 2**20:>10,.1f}  {used}")
    done = "in" if args.prune is None else "deleted from"
    print(f"{len(encoders)} encoders, {sum(each.size for each in encoders) / 2**20:,.1f} MB {done} {store.folder}")
