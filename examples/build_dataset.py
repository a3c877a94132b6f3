"""Convert a raw download to a dataset: the same as `mpt-sentiment build-dataset`."""

import sys

from mpt_sentiment.commands import main

if __name__ == "__main__":
    sys.exit(main(["build-dataset", *sys.argv[1:]]))
