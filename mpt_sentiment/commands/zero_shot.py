"""Command `zero-shot`: classify posts with a large multimodal model, without training.

    mpt-sentiment zero-shot --dataset mvsa_single --data_dir MVSA_Single --output_dir zero_shot \\
        --endpoint http://localhost:8000
    mpt-sentiment zero-shot --dataset ch_mits --data_dir CH-Mits --output_dir zero_shot --engine transformers

The arguments of posts and split are those of `train`, and so are the posts on each side of the split. OUTPUT_DIR gets
predictions.parquet and metrics.json as those of `train`, log_probs.parquet, and the store of the answers. Exit codes:
0 done; 1 refused, or every request fails until you correct the cause, which the message names; 3 finished, but some
posts have no answer; 75 server unreachable or overloaded, try again later; 130 interrupted. After 1, 75 and 130 the
same command resumes the run.
"""

from collections.abc import Sequence

from mpt_sentiment.arguments import DataArguments, parse
from mpt_sentiment.commands.faults import INCOMPLETE, INTERRUPTED
from mpt_sentiment.commands.logs import set_up_logging
from mpt_sentiment.generating import report_lines
from mpt_sentiment.generation_arguments import EngineArguments, ZeroShotArguments
from mpt_sentiment.training_data import load_splits
from mpt_sentiment.zero_shot_classification import classify


def main(argv: Sequence[str]) -> int | None:
    """Run the command.

    Raises:
        ValueError: unusable arguments or posts.
    """
    args, engine_args, data_args = parse(
        (ZeroShotArguments, EngineArguments, DataArguments), argv, command="zero-shot"
    )
    set_up_logging()
    splits, data = load_splits(data_args)
    try:
        result = classify(splits, data, args, engine_args)
    except KeyboardInterrupt as interrupt:
        print(interrupt)
        return INTERRUPTED
    print("\n".join(report_lines(result.report)), result, sep="\n")
    return INCOMPLETE if result.report.absent else 0
