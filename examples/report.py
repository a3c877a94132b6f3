"""Write the paper's tables and figures as a page: the same as `mpt-sentiment report`."""

import sys

from mpt_sentiment.commands import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
