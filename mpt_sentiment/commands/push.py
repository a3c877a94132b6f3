"""Command `push`: publish a dataset, a trained model or rationales on the Hub.

    mpt-sentiment push FOLDER OWNER/NAME                    # shows what would be sent; sends nothing
    mpt-sentiment push FOLDER OWNER/NAME --private --push   # sends it

FOLDER is the output_dir of `build-dataset`, `train` or `generate-rationales`. Text and fields that a person wrote on
the card, in the folder or on the Hub, are kept.

Needs a token that can write: `hf auth login`, or the environment variable HF_TOKEN. After a broken connection the same
command resumes the upload; files that have not changed are not sent again.
"""

import argparse
import logging
import shlex
from typing import NoReturn

from dataset_scripts.writing.hub import difference, plan_push, push


def refuse(message: str) -> NoReturn:
    """Raise an error of the parser as a ValueError."""
    raise ValueError(f"{message}. See `mpt-sentiment push --help`.")


def main(argv: list[str]) -> None:
    """Parse the arguments, print the plan, and push if asked to.

    Raises:
        ValueError: bad arguments, or a folder that cannot be published.
    """
    # Not the parser of `mpt_sentiment.arguments`, which imports transformers.
    parser = argparse.ArgumentParser(
        prog="mpt-sentiment push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.error = refuse
    parser.add_argument("folder", help="output folder of build-dataset, train or generate-rationales")
    parser.add_argument("repo_id", help="OWNER/NAME on the Hub; created if it does not exist")
    parser.add_argument("--private", action="store_true", help="require a private repository")
    parser.add_argument("--replace_card", action="store_true", help="replace the card on the Hub by the folder's")
    parser.add_argument("--push", action="store_true", help="send the files; by default only list them")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("dataset_scripts").setLevel(logging.INFO)
    plan = plan_push(args.folder, args.repo_id, args.private, replace_card=args.replace_card)
    print(f"{plan.describe()}\n{difference(plan)}")
    if args.push:
        print(f"Published: {push(plan)}")
    else:
        command = ["mpt-sentiment", "push", *argv, "--push"]
        print(f"Without --push, nothing is sent. To send the files:\n  {shlex.join(command)}")
