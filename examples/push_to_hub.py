"""Publish a dataset folder or a trained model on the Hub: the same as `mpt-sentiment push`."""

import sys

from mpt_sentiment.commands import main

if __name__ == "__main__":
    sys.exit(main(["push", *sys.argv[1:]]))
