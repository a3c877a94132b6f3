"""Score the linear baselines and the majority label: the same as `mpt-sentiment linear`."""

import sys

from mpt_sentiment.commands import main

if __name__ == "__main__":
    sys.exit(main(["linear", *sys.argv[1:]]))
