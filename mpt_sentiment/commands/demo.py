"""Command `demo`: classify posts with a trained model in a browser, or make a Space of it.

    mpt-sentiment demo FOLDER
    mpt-sentiment demo FOLDER --endpoint http://localhost:8000 --rationale_model Qwen/Qwen2.5-VL-7B-Instruct
    mpt-sentiment demo FOLDER --space my_space

FOLDER is the output_dir of `train`. Its code is run: use only folders that you trust.
"""

from collections.abc import Sequence

from transformers.utils.logging import disable_progress_bar

from mpt_sentiment.commands.logs import set_up_logging
from mpt_sentiment.serving_arguments import DemoArguments, parse_folder


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: unusable arguments or model.
        ImportError: the extra `demo` is not installed.
    """
    folder, args = parse_folder(DemoArguments, argv, "demo", __doc__)
    set_up_logging()
    disable_progress_bar()
    try:
        from mpt_sentiment.demo.running import demo
        from mpt_sentiment.demo.space import make_space
    except ImportError as error:
        raise ImportError(f"`demo` needs {error.name}: pip install 'mpt-sentiment[demo]'", name=error.name) from None
    if args.space is None:
        demo(folder, args)
        return
    make_space(folder, args.space)
    print(f"The Space is in {args.space}. Publish it: hf upload OWNER/NAME {args.space} . --repo-type space")
