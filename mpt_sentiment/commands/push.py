"""Command `push`: publish a dataset folder or a trained model on the Hub.

    mpt-sentiment push FOLDER OWNER/NAME                    # shows what would be sent; sends nothing
    mpt-sentiment push FOLDER OWNER/NAME --private --push   # sends it

Needs a token that can write: `hf auth login`, or the environment variable HF_TOKEN. After a broken connection the same
command resumes the upload; files that have not changed are not sent again.
"""

import argparse
import logging
import shlex

from mpt_sentiment.pushing import push_to_hub


def main(argv: list[str]) -> None:
    """Parse the arguments, print the plan, and push if asked to."""
    # Not the parser of `mpt_sentiment.arguments`, which imports transformers.
    parser = argparse.ArgumentParser(
        prog="mpt-sentiment push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="output folder of build-dataset or train")
    parser.add_argument("repo_id", help="OWNER/NAME on the Hub; created if it does not exist")
    parser.add_argument("--private", action="store_true", help="require a private repository")
    parser.add_argument("--push", action="store_true", help="send the files; by default only list them")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("dataset_scripts").setLevel(logging.INFO)
    print(push_to_hub(args.folder, args.repo_id, private=args.private, dry_run=True))
    if args.push:
        print(f"Published: {push_to_hub(args.folder, args.repo_id, private=args.private)}")
    else:
        command = ["mpt-sentiment", "push", *argv, "--push"]
        print(f"Without --push, nothing is sent. To send the files:\n  {shlex.join(command)}")
