"""Cells of comparisons: folders, arguments, and rationales shuffled between posts."""

import collections

import mpt_sentiment as mpt
from mpt_sentiment.cells import make_cells, posts_of_cell, shuffled_rationales
from mpt_sentiment.protocol import Protocol
from mpt_sentiment.rows import parse_row

POSTS = mpt.split_posts(mpt.load_posts("sample", num_posts=60, seed=3))
RATIONALES = [name for name in POSTS["train"].column_names if name.startswith("rationale_")]
PROTOCOL = Protocol.of_fields("sample", "sample", {})


def rationales(split):
    return list(zip(*(split[name] for name in RATIONALES), strict=True))


def cells(folder, rows, folds=(None,), seeds=(1,), **options):
    modalities = ["text", "image", "rationales"]
    return make_cells(
        [parse_row(row) for row in rows], folds, seeds, PROTOCOL, "sample", modalities, folder, **options
    )


def test_shuffled_rationales_are_those_of_another_post_of_the_same_split():
    shuffled = shuffled_rationales(POSTS, seed=1)
    for name, split in POSTS.items():
        assert shuffled[name].features == split.features
        assert shuffled[name]["id"] == split["id"] and shuffled[name]["text"] == split["text"]
        assert shuffled[name]["image"] == split["image"] and shuffled[name]["label"] == split["label"]
        before, after = rationales(split), rationales(shuffled[name])
        assert collections.Counter(after) == collections.Counter(before)
        place = {row: {i for i, other in enumerate(before) if other == row} for row in before}
        assert all(place[row] != {i} for i, row in enumerate(after))


def test_the_seed_determines_the_order_of_shuffled_rationales(tmp_path):
    one, same, other = (rationales(shuffled_rationales(POSTS, seed)["train"]) for seed in (1, 1, 2))
    assert one == same != other
    plain, shuffled = cells(tmp_path, ["mpt", "mpt shuffled"], seeds=[2])[0]
    assert rationales(posts_of_cell(shuffled, POSTS)["train"]) == other
    assert posts_of_cell(plain, POSTS) is POSTS


def test_cells_are_listed_seed_by_seed_and_a_linear_baseline_once(tmp_path):
    made, refused = cells(tmp_path, ["tfidf", "mpt -mlcl"], folds=[0, 3], seeds=[1, 2])
    names = [
        "tfidf/fold-0/seed-1",
        "tfidf/fold-3/seed-1",
        *(f"mpt_-mlcl/fold-{f}/seed-{s}" for s in (1, 2) for f in (0, 3)),
    ]
    assert [cell.folder.relative_to(tmp_path).as_posix() for cell in made] == names and not refused
    assert [str(cell) for cell in made][2] == "mpt -mlcl, fold 0, seed 1"
    assert len({id(cell.setup) for cell in made}) == 2  # built once per row
    own = made[-1].own_setup()
    assert (own.training.seed, own.training.data_seed) == (2, 2) and own.training.output_dir == str(made[-1].folder)
    assert made[-1].setup.training.output_dir != own.training.output_dir and own.model.loss_weight_mlcl == 0


def test_a_row_that_is_refused_does_not_cost_the_others(tmp_path):
    made, refused = cells(tmp_path, ["mpt", "mpt -sknet -lstm", "bert optim=nothing"], seeds=[1, 2])
    assert [cell.row.title for cell in made] == ["mpt", "mpt"]
    assert refused["mpt -sknet -lstm"] == "nothing is left without sknet, lstm"
    assert "nothing" in refused["bert optim=nothing"]


def test_values_of_a_search_are_fields_and_names_of_folders(tmp_path):
    points = [{"dropout": 0.1}, {"dropout": 0.3}]
    made, _ = cells(tmp_path, ["bert"], points=lambda row, fold: points)
    assert [cell.setup.model.dropout for cell in made] == [0.1, 0.3]
    assert [cell.folder.name for cell in made] == ["seed-1,dropout=0.1", "seed-1,dropout=0.3"]
