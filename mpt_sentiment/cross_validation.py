"""Cross-validation of one system: a run per fold, scored over all posts."""

from pathlib import Path

from accelerate import PartialState

from dataset_scripts.output import check_writable
from mpt_sentiment.cell_training import evaluate_cell
from mpt_sentiment.cells import Cell, run_cells
from mpt_sentiment.comparing import ComparisonResult, tabulate
from mpt_sentiment.out_of_fold import groups_of_tested
from mpt_sentiment.recipe import TrainingSetup
from mpt_sentiment.rows import Row
from mpt_sentiment.training import checked
from mpt_sentiment.training_data import Parts


def cross_validate(setup: TrainingSetup, parts: Parts) -> ComparisonResult:
    """Train a system once per fold and seed, and score the predictions of all posts.

    Args:
        setup ([`TrainingSetup`]): all arguments; `jobs` runs side by side, and models are saved with `keep_models`.
        parts ([`Parts`]): posts of each fold.

    Returns:
        The result, a comparison of one row.

    Raises:
        ValueError: the system cannot be trained, or a run failed.
    """
    output_dir, seeds = Path(setup.training.output_dir), setup.run.seeds or [setup.training.seed]
    check_writable(output_dir)
    checked(setup, next(iter(parts.values())).posts)
    row = Row(setup.model.model, ("+rationales",) if setup.model.use_rationales else ())
    cells = [
        Cell(row, fold, seed, output_dir / f"fold-{fold}" / f"seed-{seed}", setup) for seed in seeds for fold in parts
    ]
    failed = run_cells(cells, evaluate_cell, parts, setup.run.jobs)
    errors = {str(cell): error for cell, error in failed.items()}
    if len(failed) == len(cells):
        cell, error = next(iter(errors.items()))
        raise ValueError(f"None of {len(cells)} runs finished. {cell}: {error}")
    state = PartialState()
    groups = groups_of_tested(parts, setup.data.split_options.get("group_column"))
    finished = [cell for cell in cells if cell not in failed]
    result = tabulate([row], finished, errors, parts, groups, output_dir, write=state.is_main_process)
    state.wait_for_everyone()
    return result
