"""Write rationales: the same as `mpt-sentiment generate-rationales`."""

import sys

from mpt_sentiment.commands import main

if __name__ == "__main__":
    sys.exit(main(["generate-rationales", *sys.argv[1:]]))
