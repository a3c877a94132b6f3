"""Search of hyperparameters: the same grid for every row, scored on validation alone.

A point of the grid that finished is never trained again. The test posts are given to no model.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, DatasetDict

from dataset_scripts.output import check_writable, markdown_table, write_text_atomically
from mpt_sentiment.cell_training import validate_cell
from mpt_sentiment.cells import Cell, base_setups, make_cells, modalities_of_parts, refuse, run_cells
from mpt_sentiment.evaluation.model_card import without_paths
from mpt_sentiment.linear import BASELINES
from mpt_sentiment.protocol import Protocol
from mpt_sentiment.rows import Row, expand_rows, parse_rows
from mpt_sentiment.run_identity import METRICS_FILE, run_settings
from mpt_sentiment.training_data import Parts, dataset_name, split_parts

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
        rows (`list[dict]`): `row`, `fold`, `chosen` values, and `points`: each with its `values` and `validation`.
        failed (`dict[str, str]`): error of each run that failed; its row has no chosen values.
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

    def check(self, seeds: Sequence[int], parts: Parts, protocol: Protocol) -> None:
        """Check that a comparison can take the chosen values.

        Raises:
            ValueError: it repeats the seed of the search, has another split, or sets an argument of the grid.
        """
        if self.seed in seeds:
            raise ValueError(
                f"The search used the seed {self.seed}. A comparison needs fresh ones, e.g. `seeds` "
                f"{' '.join(str(self.seed + step) for step in (1, 2, 3))}."
            )
        if self.settings["data"]["split_hash"] != digest_of(parts):
            raise ValueError(
                "The search used other posts or another split, so that its validation posts may be test posts here. "
                "Search again on these posts."
            )
        given = [name for name in self.grid if name in protocol.fields]
        if given:
            raise ValueError(f"`{given[0]}` is chosen by the search. Leave it out, or compare without `search`.")

    def chosen(self, row: Row, fold: int | None) -> dict[str, Any]:
        """Return the values that were chosen for a row, in each fold on its own validation posts.

        Raises:
            ValueError: the search has none.
        """
        for each in self.rows:
            if (each["row"], each["fold"]) == (row.title, fold) and each["chosen"] is not None:
                return each["chosen"]
        raise ValueError(
            f"The search has no values for {row.title}. Search with `rows` {row.title!r}: what finished is kept."
        )

    def notes(self, cells: Sequence[Cell], parts: Parts) -> list[str]:
        """Describe the search in lines for the table of a comparison."""
        names = ", ".join(self.grid)
        lines = [f"{names}: chosen on validation with the seed {self.seed}, see {SEARCH_FILE}."]
        setups = [cell.setup for cell in cells if cell.is_network]
        if setups and (different := _differences(self.settings, shared_settings(setups[0], parts, self.grid))):
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
            fold = "" if row["fold"] is None else f", fold {row['fold']}"
            rows.append([row["row"] + fold, chosen, best and f"{abs(best):.4f}", points])
        table = markdown_table(["Row", "Chosen", f"Validation {self.metric}", "All points"], rows, "llrl")
        return f"# Search, seed {self.seed}\n\n{table}\n"


def search_file(path: str | Path) -> Path:
    """Return the file of a search, given the file or its folder."""
    return Path(path) / SEARCH_FILE if Path(path).is_dir() else Path(path)


def search(
    posts: Dataset | DatasetDict,
    rows: Sequence[str] | str = "all",
    *,
    output_dir: str | Path,
    seed: int = 42,
    recipe: str | Path | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    **fields: Any,
) -> SearchResult:
    """Choose hyperparameters on validation, from the same grid for every row.

    Called again, finished runs are reused, and earlier rows are kept.

    Args:
        posts (`Dataset` or `DatasetDict`): see `mpt_sentiment.train`. Test posts are not scored. A `Dataset` with
            `split="folds"` is searched in each fold, on the fold's validation posts.
        rows (sequence of `str`, or `str`): see `mpt_sentiment.compare`; the linear baselines need no search.
        output_dir (`str` or `Path`): folder of `search.json`, `search.md` and the runs.
        seed (`int`, defaults to 42): seed of all runs. A comparison with the result must use others.
        recipe: see `mpt_sentiment.compare`.
        grid (mapping, *optional*): values of each argument, in all combinations. By default `head_learning_rate` 3e-4
            and 1e-3, `dropout` 0.1 and 0.3.
        fields: as of `mpt_sentiment.train`.

    Returns:
        [`SearchResult`].

    Raises:
        ValueError: an unknown row or field, posts that cannot be trained on, or a folder with another search.
    """
    name = dataset_name(posts)
    protocol = Protocol.of_fields(recipe, name, {"output_dir": str(output_dir)} | fields)
    parts = split_parts(posts, protocol.setup("mpt", name, {}).data)
    return run_search(rows, seed, GRID if grid is None else grid, protocol, parts, Path(output_dir))


def run_search(
    rows: Sequence[str] | str,
    seed: int,
    grid: Mapping[str, Sequence[Any]],
    protocol: Protocol,
    parts: Parts,
    output_dir: Path,
) -> SearchResult:
    """Train every point of the grid for every row, and write the result.

    Args:
        rows, seed, grid: see [`search`].
        protocol ([`Protocol`]): arguments of all systems.
        parts ([`Parts`]): posts of each fold; test is only part of the runs' identity.
        output_dir (`Path`): folder of the results.
    """
    parsed, posts = parse_rows(rows), next(iter(parts.values())).posts
    name = dataset_name(posts)
    base = base_setups(protocol, name)
    networks = networks_among(expand_rows(parsed, posts, base))
    check_grid(grid)
    protocol.check([row.system for row in networks])
    check_writable(output_dir)
    points = grid_points(grid)
    present, folder = modalities_of_parts(parts), output_dir / "search"
    cells, refused = make_cells(
        networks, list(parts), [seed], protocol, name, present, folder, lambda row, fold: points
    )
    if not cells:
        title, error = next(iter(refused.items()))
        raise ValueError(f"No row can be searched. {title}: {error}")
    metric = (cells[0].setup.training.metric_for_best_model or "loss").removeprefix("eval_")
    result = SearchResult(seed, metric, {**grid}, shared_settings(cells[0].setup, parts, grid), [], {})
    overwrite = cells[0].setup.run.overwrite
    earlier_rows(result, output_dir, overwrite=overwrite)
    usable, refused = refuse(cells, parts, refused)
    failed = run_cells(usable, validate_cell, parts, base("mpt").run.jobs)
    earlier = earlier_rows(result, output_dir, overwrite=overwrite)  # another process may have searched other rows
    found = {(row["row"], row["fold"]): row for row in earlier}
    groups: dict[tuple[str, int | None], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.row.title, cell.fold), []).append(cell)
    failed |= {cell: refused[cell.row.title] for cell in cells if cell.row.title in refused}
    found |= {key: row_of(group, failed, metric) for key, group in groups.items()}
    errors = {str(cell): error for cell, error in failed.items()}
    result = dataclasses.replace(result, rows=list(found.values()), failed=refused | errors)
    state = PartialState()
    if state.is_main_process:
        result.write(output_dir)
        print(f"\n{result}\nThe chosen values are in {output_dir / SEARCH_FILE}")
    state.wait_for_everyone()
    return result


def networks_among(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of networks, as they are trained.

    Raises:
        ValueError: there is none.
    """
    networks = list(dict.fromkeys(row.trained for row in rows if row.system not in BASELINES))
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


def row_of(cells: Sequence[Cell], failed: Mapping[Cell, str], metric: str) -> dict[str, Any]:
    """Build the result of a row in a fold; a failed point leaves it without chosen values."""
    points = []
    for cell in cells:
        if cell not in failed:
            metrics = json.loads((cell.folder / METRICS_FILE).read_text(encoding="utf-8"))
            points.append({"values": cell.values, "validation": metrics["validation"]})
    complete = len(points) == len(cells)
    chosen = max(points, key=lambda point: _score(point, metric))["values"] if complete else None
    return {"row": cells[0].row.title, "fold": cells[0].fold, "chosen": chosen, "points": points}


def earlier_rows(result: SearchResult, output_dir: Path, *, overwrite: bool) -> list[dict[str, Any]]:
    """Return the rows of an earlier search in the folder, if it was the same for other rows.

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


def digest_of(parts: Parts) -> str:
    """Return the hash of the split, of several folds joined."""
    return "+".join(part.data.split_hash for part in parts.values())


def shared_settings(setup: Any, parts: Parts, grid: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the settings of all points: digests of the posts, and training arguments."""
    settings = run_settings(setup, next(iter(parts.values())).posts)
    settings["data"]["split_hash"] = digest_of(parts)
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
