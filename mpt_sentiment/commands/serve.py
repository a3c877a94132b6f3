"""Command `serve`: answer posts over HTTP with a trained model.

    mpt-sentiment serve FOLDER --port 8000
    curl -F text="What a day" -F image=@beach.jpg http://127.0.0.1:8000/predict

FOLDER is the output_dir of `train`. Its code is run: use only folders that you trust.
"""

from collections.abc import Sequence

from mpt_sentiment.commands.logs import hide_progress_bars, set_up_logging
from mpt_sentiment.extras import needs_extra
from mpt_sentiment.serving_arguments import ServeArguments, parse_folder


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: unusable arguments or model.
        ImportError: the extra `serve` is not installed.
    """
    folder, args = parse_folder(ServeArguments, argv, "serve", __doc__)
    set_up_logging()
    hide_progress_bars()
    with needs_extra("serve", "serve"):
        from mpt_sentiment.serving.running import serve
    serve(folder, args)
