"""Search of hyperparameters: the same grid for every system, scored on validation alone.

A point of the grid that finished is never trained again. The test posts are given to no model.
"""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, DatasetDict

from dataset_scripts.output import check_writable, markdown_table, write_text_atomically
from modeling_mpt import SYSTEMS
from modeling_mpt.trainer_mpt import last_complete_checkpoint
from mpt_sentiment.cells import (
    Cell,
    arms_of_posts,
    check_systems,
    make_cells,
    posts_of_cell,
    run_cells,
    setup_of_cell,
    unusable_cells,
)
from mpt_sentiment.evaluation import TrainingData, write_metrics
from mpt_sentiment.evaluation.comparison import row_title
from mpt_sentiment.evaluation.model_card import without_paths
from mpt_sentiment.protocol import Protocol
from mpt_sentiment.results import best_evaluation
from mpt_sentiment.run_identity import METRICS_FILE, finished_metrics, run_settings
from mpt_sentiment.training import build_trainer, checked
from mpt_sentiment.training_data import as_splits, dataset_name

GRID = {"head_learning_rate": [3e-4, 1e-3], "dropout": [0.1, 0.3]}
SEARCH_FILE = "search.json"


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """A finished search.

    Attributes:
        seed (`int`): seed of all runs.
        metric (`str`): score on validation that chooses.
        grid (`dict[str, list]`): values of each argument.
        settings (`dict`): digests of the posts, and the training arguments that all points share.
        rows (`list[dict]`): `system`, `arm`, `chosen` values, and `points`: each with its `values` and `validation`.
        failed (`dict[str, str]`): error of each run that failed; its system has no chosen values.
    """

    seed: int
    metric: str
    grid: dict[str, list[Any]]
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    failed: dict[str, str]

    @classmethod
    def read(cls, path: str | Path) -> "SearchResult":
        """Read a result, given its file or folder.

        Raises:
            ValueError: no such file, or not the result of a search.
        """
        path = search_file(path)
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ValueError(f"{path} does not exist. Write it with `mpt-sentiment search`.") from None
        except (ValueError, TypeError):
            raise ValueError(f"{path} is not the {SEARCH_FILE} that `mpt-sentiment search` writes.") from None

    def write(self, folder: Path) -> None:
        """Write `search.json` and the table `search.md` in a folder."""
        text = without_paths(json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False))  # users share it
        write_text_atomically(folder / SEARCH_FILE, text + "\n")
        write_text_atomically(folder / "search.md", str(self))

    def check(self, seeds: Sequence[int], data: TrainingData, protocol: Protocol) -> None:
        """Check that a comparison can take the chosen values.

        Raises:
            ValueError: it repeats the seed of the search, has another split, or sets an argument of the grid.
        """
        if self.seed in seeds:
            raise ValueError(
                f"The search used the seed {self.seed}. A comparison needs fresh ones, e.g. `seeds` "
                f"{' '.join(str(self.seed + step) for step in (1, 2, 3))}."
            )
        if self.settings["data"]["split_hash"] != data.split_hash:
            raise ValueError(
                "The search used other posts or another split, so that its validation posts may be test posts here. "
                "Search again on these posts."
            )
        given = [name for name in self.grid if name in protocol.fields]
        if given:
            raise ValueError(f"`{given[0]}` is chosen by the search. Leave it out, or compare without `search`.")

    def chosen(self, system: str, arm: str) -> dict[str, Any]:
        """Return the values that were chosen for a system in an arm.

        Raises:
            ValueError: the search has none.
        """
        for row in self.rows:
            if (row["system"], row["arm"]) == (system, arm) and row["chosen"] is not None:
                return row["chosen"]
        raise ValueError(
            f"The search has no values for {row_title(system, arm)}. Search with `systems` {system} and `arms` {arm}: "
            "what finished is kept."
        )

    def notes(self, cells: Sequence[Cell], posts: DatasetDict) -> list[str]:
        """Describe the search in lines for the table of a comparison."""
        names = ", ".join(self.grid)
        lines = [f"{names}: chosen on validation with the seed {self.seed}, see {SEARCH_FILE}."]
        setups = [cell.setup for cell in cells if cell.setup is not None]
        if setups and (different := _differences(self.settings, shared_settings(setups[0], posts, self.grid))):
            lines.append(f"The search had other settings: {', '.join(different)}.")
        return lines

    def __str__(self) -> str:
        rows = []
        for row in self.rows:
            best = max((_score(point, self.metric) for point in row["points"]), default=None)
            points = "; ".join(
                f"{_words(point['values'])}: {point['validation'][self.metric]:.4f}" for point in row["points"]
            )
            chosen = "a run failed" if row["chosen"] is None else _words(row["chosen"])
            rows.append([row_title(row["system"], row["arm"]), chosen, best and f"{abs(best):.4f}", points])
        table = markdown_table(["System", "Chosen", f"Validation {self.metric}", "All points"], rows, "llrl")
        return f"# Search, seed {self.seed}\n\n{table}\n"


def search_file(path: str | Path) -> Path:
    """Return the file of a search, given the file or its folder."""
    return Path(path) / SEARCH_FILE if Path(path).is_dir() else Path(path)


def search(
    posts: Dataset | DatasetDict,
    systems: Sequence[str] | str = "all",
    *,
    output_dir: str | Path,
    seed: int = 42,
    recipe: str | Path | None = None,
    arms: Sequence[str] | str = "all",
    grid: Mapping[str, Sequence[Any]] | None = None,
    **fields: Any,
) -> SearchResult:
    """Choose hyperparameters on validation, from the same grid for every system.

    Called again, finished runs are reused, and rows of other systems are kept.

    Args:
        posts (`Dataset` or `DatasetDict`): see `mpt_sentiment.train`. Test posts are not scored.
        systems (sequence of `str`, or `"all"`): names of systems; the linear baselines need no search.
        output_dir (`str` or `Path`): folder of `search.json`, `search.md` and the runs.
        seed (`int`, defaults to 42): seed of all runs. A comparison with the result must use others.
        recipe, arms: see `mpt_sentiment.compare`.
        grid (mapping, *optional*): values of each argument, in all combinations. By default `head_learning_rate` 3e-4
            and 1e-3, `dropout` 0.1 and 0.3.
        fields: as of `mpt_sentiment.train`.

    Returns:
        [`SearchResult`].

    Raises:
        ValueError: an unknown system, arm or field, posts that cannot be trained on, or a folder with another search.
    """
    splits, data = as_splits(posts)
    protocol = Protocol.of_fields(recipe, dataset_name(splits), {"output_dir": str(output_dir)} | fields)
    return run_search(systems, arms, seed, GRID if grid is None else grid, protocol, splits, data, Path(output_dir))


def run_search(
    systems: Sequence[str] | str,
    arms: Sequence[str] | str,
    seed: int,
    grid: Mapping[str, Sequence[Any]],
    protocol: Protocol,
    posts: DatasetDict,
    data: TrainingData,
    output_dir: Path,
) -> SearchResult:
    """Train every point of the grid for every system, and write the result.

    Args:
        systems, arms, seed, grid: see [`search`].
        protocol ([`Protocol`]): arguments of all systems.
        posts (`DatasetDict`): train, validation and test; test is only part of the runs' identity.
        data ([`TrainingData`]): account of the posts.
        output_dir (`Path`): folder of the results.
    """
    networks, arms = check_networks(systems), arms_of_posts(arms, posts)
    check_grid(grid)
    protocol.check(networks)
    check_writable(output_dir)
    folder, points = output_dir / "search", grid_points(grid)
    cells = make_cells(networks, arms, [seed], protocol, dataset_name(posts), folder, lambda system, arm: points)
    metric = (cells[0].setup.training.metric_for_best_model or "loss").removeprefix("eval_")
    result = SearchResult(seed, metric, {**grid}, shared_settings(cells[0].setup, posts, grid), [], {})
    overwrite = cells[0].setup.run.overwrite
    earlier_rows(result, output_dir, overwrite=overwrite)
    failed = unusable_cells(cells, posts)
    failed |= run_cells([cell for cell in cells if cell not in failed], lambda cell: validate_cell(cell, posts, data))
    earlier = earlier_rows(result, output_dir, overwrite=overwrite)  # another process may have searched other systems
    rows = {(row["system"], row["arm"]): row for row in earlier}
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.system, cell.arm), []).append(cell)
    rows |= {key: row_of(group, failed, metric) for key, group in groups.items()}
    result = dataclasses.replace(
        result, rows=list(rows.values()), failed={str(cell): error for cell, error in failed.items()}
    )
    state = PartialState()
    if state.is_main_process:
        result.write(output_dir)
        print(f"\n{result}\nThe chosen values are in {output_dir / SEARCH_FILE}")
    state.wait_for_everyone()
    return result


def check_networks(systems: Sequence[str] | str) -> list[str]:
    """Return the networks among the named systems.

    Raises:
        ValueError: an unknown name, or no network.
    """
    networks = [name for name in check_systems(systems) if name in SYSTEMS]
    if not networks:
        raise ValueError("The linear baselines choose their regularization on validation; name a network to search.")
    return networks


def check_grid(grid: Any) -> None:
    """Raise a ValueError unless a grid maps names to lists of values."""
    if not isinstance(grid, Mapping) or not grid or not all(isinstance(v, list | tuple) and v for v in grid.values()):
        raise ValueError(
            f'`grid` must map arguments to lists of values, e.g. {{"dropout": [0.1, 0.3]}}, got {grid!r}.'
        )


def grid_points(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """List all combinations of the values of a grid."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def validate_cell(cell: Cell, posts: DatasetDict, data: TrainingData) -> None:
    """Train a point of the grid unless its metrics exist, and write its best validation scores."""
    posts = posts_of_cell(cell, posts)
    setup = checked(setup_of_cell(cell), posts)
    args = setup.training
    settings = run_settings(setup, posts) | {"seed": cell.seed}
    if finished_metrics(cell.folder, settings, overwrite=setup.run.overwrite, save=args.should_save) is not None:
        return
    trainer = build_trainer(setup, DatasetDict({name: posts[name] for name in ("train", "validation")}), data, args)
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(cell.folder))
    if trainer.is_world_process_zero():
        validation = best_evaluation(trainer.state.log_history, args)
        scores = {name.removeprefix("eval_"): value for name, value in validation.items()}
        write_metrics(cell.folder / METRICS_FILE, {"validation": scores, "updates": trainer.state.global_step})
        for checkpoint in cell.folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    args.distributed_state.wait_for_everyone()


def row_of(cells: Sequence[Cell], failed: Mapping[Cell, str], metric: str) -> dict[str, Any]:
    """Build the row of a system in an arm; a failed point leaves it without chosen values."""
    points = []
    for cell in cells:
        if cell not in failed:
            metrics = json.loads((cell.folder / METRICS_FILE).read_text(encoding="utf-8"))
            points.append({"values": cell.values, "validation": metrics["validation"]})
    complete = len(points) == len(cells)
    chosen = max(points, key=lambda point: _score(point, metric))["values"] if complete else None
    return {"system": cells[0].system, "arm": cells[0].arm, "chosen": chosen, "points": points}


def earlier_rows(result: SearchResult, output_dir: Path, *, overwrite: bool) -> list[dict[str, Any]]:
    """Return the rows of an earlier search in the folder, if it was the same for other systems.

    Raises:
        ValueError: it had another seed, grid or settings.
    """
    if overwrite or not (output_dir / SEARCH_FILE).is_file():
        return []
    earlier = SearchResult.read(output_dir)
    different = [name for name in ("seed", "metric", "grid") if getattr(earlier, name) != getattr(result, name)]
    different += _differences(earlier.settings, result.settings)
    if different:
        raise ValueError(
            f"{output_dir} holds a search with other settings ({', '.join(different)}). Choose another --output_dir, "
            "or start again with --overwrite."
        )
    return earlier.rows


def shared_settings(setup: Any, posts: DatasetDict, grid: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the settings of all points: digests of the posts, and training arguments."""
    settings = run_settings(setup, posts)
    training = {name: value for name, value in settings["training"].items() if name not in grid}
    return json.loads(without_paths(json.dumps({"data": settings["data"], "training": training})))


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return sorted(
        name
        for part in ("data", "training")
        for name in earlier[part].keys() | now[part].keys()
        if earlier[part].get(name) != now[part].get(name)
    )


def _score(point: Mapping[str, Any], metric: str) -> float:
    value = point["validation"][metric]
    return -value if metric == "loss" else value


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
