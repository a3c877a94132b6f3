"""Command `demo`: classify posts with a trained model in a browser, or make a Space of it.

    mpt-sentiment demo FOLDER
    mpt-sentiment demo FOLDER --endpoint http://localhost:8000 --rationale_model Qwen/Qwen2.5-VL-7B-Instruct
    mpt-sentiment demo FOLDER --space my_space

FOLDER is the output_dir of `train`. Its code is run: use only folders that you trust.
"""

from collections.abc import Sequence

from mpt_sentiment.commands.logs import hide_progress_bars, set_up_logging
from mpt_sentiment.extras import needs_extra
from mpt_sentiment.serving_arguments import DemoArguments, parse_folder


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: unusable arguments or model.
        ImportError: the extra `demo` is not installed.
    """
    folder, args = parse_folder(DemoArguments, argv, "demo", __doc__)
    set_up_logging()
    hide_progress_bars()
    with needs_extra("demo", "demo"):
        from mpt_sentiment.demo.running import demo
        from mpt_sentiment.demo.space import make_space
    if args.space is None:
        demo(folder, args)
        return
    make_space(folder, args.space)
    print(f"The Space is in {args.space}. Publish it: hf upload OWNER/NAME {args.space} . --repo-type space")
