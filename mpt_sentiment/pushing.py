"""Push a dataset folder (of build_dataset.py) or a trained model (of train.py) to the Hugging Face Hub.

    python examples/push_to_hub.py FOLDER OWNER/NAME                    # shows what would be sent; sends nothing
    python examples/push_to_hub.py FOLDER OWNER/NAME --private --push   # sends it

Needs a token that may write: `hf auth login`, or the environment variable HF_TOKEN. Run again after a broken
connection, it goes on; run again with nothing changed, it sends nothing.
"""

import argparse
import logging
import shlex

from dataset_scripts.writing.hub import plan_push, push


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="output folder of build_dataset.py or train.py")
    parser.add_argument("repo_id", help="OWNER/NAME on the Hub; made if it does not exist")
    parser.add_argument("--private", action="store_true", help="the repository must be private")
    parser.add_argument("--push", action="store_true", help="send it; without this, only show what would be sent")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("dataset_scripts").setLevel(logging.INFO)
    plan = plan_push(args.folder, args.repo_id, args.private)
    print(f"{plan.folder} is a {plan.repo_type}.")
    if args.push:
        print(plan.describe())
        print(f"Published: {push(plan)}")
    else:
        print(f"Without --push nothing is sent. These calls would run:\n{plan.describe()}")
        private = ["--private"] if args.private else []
        command = ["python", "examples/push_to_hub.py", args.folder, args.repo_id, *private, "--push"]
        print(f"To run them:\n  {shlex.join(command)}")
