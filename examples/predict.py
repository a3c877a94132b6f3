"""Label posts with a trained model: the same as `mpt-sentiment predict`."""

import sys

from mpt_sentiment.commands import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
