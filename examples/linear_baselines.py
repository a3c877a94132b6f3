"""Score the floors of a comparison on one split: the same as `mpt-sentiment linear`."""

import sys

from mpt_sentiment.commands import main

if __name__ == "__main__":
    sys.exit(main(["linear", *sys.argv[1:]]))
