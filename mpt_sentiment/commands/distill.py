"""Command `distill`: train a student without rationales on a teacher that reads them.

    mpt-sentiment distill outputs/mine --dataset folder --data_dir posts.csv --output_dir outputs/student
    mpt-sentiment distill outputs/mine small.yaml --output_dir outputs/student --seeds 1 2 3 --unlabelled more.jsonl

TEACHER is the output_dir of `train`; posts, rationales and split are those of its training. The student has the
teacher's arguments, or those of RECIPE, and reads text and image unless `--modalities` names others. Called again, an
interrupted distillation goes on.
"""

from collections.abc import Sequence

from mpt_sentiment.arguments import make_parser
from mpt_sentiment.commands.logs import set_up_logging
from mpt_sentiment.distilling.arguments import DistillArguments
from mpt_sentiment.distilling.run import Plan, run_distillation
from mpt_sentiment.recipe import TRAINING_CLASSES, command_layers
from mpt_sentiment.training_data import load_splits

_DESCRIPTION = "Train a student without rationales on a teacher. TEACHER is the output_dir of `train`."


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: no finished teacher, unusable arguments, or other posts than the teacher's.
    """
    parser = make_parser((*TRAINING_CLASSES, DistillArguments), "distill", _DESCRIPTION)
    teacher, *rest = argv or [""]
    if teacher in ("-h", "--help"):
        parser.parse_args([teacher])
    if not teacher or teacher.startswith("-"):
        raise ValueError("Name the teacher first: mpt-sentiment distill TEACHER --output_dir FOLDER …")
    recipe = rest[0] if rest and not rest[0].startswith("-") else None
    _, named = command_layers(rest, parser)
    if "output_dir" not in named:
        raise ValueError("Name the folder of the student: --output_dir FOLDER.")
    plan = Plan.of(teacher, recipe, named)
    set_up_logging(verbose=plan.setup.training.should_log)
    with plan.setup.training.main_process_first(desc="building the dataset"):
        posts, data = load_splits(plan.setup.data)
    run_distillation(plan, posts, data)
