"""Train a sentiment classifier of image+text posts: the same as `mpt-sentiment train`."""

import sys

from mpt_sentiment.commands import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
