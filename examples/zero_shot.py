"""Classify posts without training: the same as `mpt-sentiment zero-shot`."""

import sys

from mpt_sentiment.commands import main

if __name__ == "__main__":
    sys.exit(main(["zero-shot", *sys.argv[1:]]))
