"""Choose hyperparameters of systems on validation: the same as `mpt-sentiment search`."""

import sys

from mpt_sentiment.commands import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
