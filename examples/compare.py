"""Train and tabulate several systems: the same as `mpt-sentiment compare`."""

import sys

from mpt_sentiment.commands import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
