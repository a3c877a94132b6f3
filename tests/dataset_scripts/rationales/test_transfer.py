"""Import and export of rationales: files of the authors, tables and stores."""

import json

import pytest
from datasets import ClassLabel, Dataset, load_dataset

from dataset_scripts import features, join_rationales, load_posts
from dataset_scripts.loaders.authors import load_authors
from dataset_scripts.rationales.posts import content_hashes
from dataset_scripts.rationales.prompts import load_prompt
from dataset_scripts.rationales.spec import RationaleSpec, item_key
from dataset_scripts.rationales.store.store import RationaleStore
from dataset_scripts.rationales.transfer import export_authors, export_table, import_rationales

GOOD = "画面里的人都在笑，配文也说今天玩得很开心，图文一致，读来轻松愉快。"
BAD = "桌上的菜几乎没有动过，文字里又说等了一个小时，读来让人失望不满。"
ENGLISH = "The bright sky and the words about a long walk suggest that the author enjoyed this day a lot."


def write(path, text: str):
    path.write_bytes(text.encode())
    return path


def write_jsonl(path, rows: list[dict]):
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_jsonl(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_file_of_the_authors_is_imported(tmp_path):
    file = write(
        tmp_path / "ch.tsv",
        f'1\tp/p0/cover.jpg\t今天 出去\t{GOOD}\t"{BAD[:16]}\n{BAD[16:]}"\n'
        f"0\tD:\\ei\\Sentiment-master\\n\\n1\\image_0.jpg\t排队 好久\t\t{BAD}\n",
    )
    report = import_rationales(file, tmp_path / "out.jsonl", authors="ch_mits")
    first, second = read_jsonl(tmp_path / "out.jsonl")
    assert [first["id"], second["id"]] == ["p0", "n1"]
    assert first["rationale_negative"] == f"{BAD[:16]} {BAD[16:]}"
    assert first["raw_negative"] == f"{BAD[:16]}\n{BAD[16:]}"
    assert "newline" in first["flags_negative"]
    assert second["rationale_positive"] is None and second["status_positive"] == "open"
    assert report.status["positive"] == {"ok": 1, "open": 1}
    assert "rationale_neutral" not in first
    assert first["provenance"] == "released by the authors of the paper (ch.tsv)"


def test_flags_are_counted_and_no_row_is_dropped(tmp_path):
    rows = [
        {"id": "a", "rationale_positive": ENGLISH, "rationale_negative": "I cannot help with that request, as an AI."},
        {"id": "b", "rationale_positive": "Nice.", "rationale_negative": '"..."'},
    ]
    file = write_jsonl(tmp_path / "r.jsonl", rows)
    report = import_rationales(file, tmp_path / "out.parquet")
    out = load_dataset("parquet", data_files=str(tmp_path / "out.parquet"), split="train", cache_dir=tmp_path / "c")
    assert out["id"] == ["a", "b"]
    assert out["status_positive"] == ["ok", "flagged"] and out["status_negative"] == ["flagged", "failed"]
    assert out["rationale_negative"][1] is None and out["raw_negative"][1] == '"..."'
    assert "refusal" in out["flags_negative"][0] and report.flags["positive"]["short"] == 1
    assert "negative: failed 1, flagged 1" in report.summary() and "short 1" in report.summary()


def test_the_gate_reads_text_and_language_of_the_posts(tmp_path):
    file = write_jsonl(tmp_path / "r.jsonl", [{"id": "a", "rationale_positive": ENGLISH}])
    row = dict.fromkeys(features()) | {"id": "a", "text": "今天出去玩", "rationale_neutral": "own"}
    chinese = Dataset.from_list([row], features=features())
    import_rationales(file, tmp_path / "alone.jsonl")
    import_rationales(file, tmp_path / "post.jsonl", posts=chinese)
    import_rationales(file, tmp_path / "given.jsonl", posts=chinese, language="en")
    flags = [read_jsonl(tmp_path / f"{name}.jsonl")[0]["flags_positive"] for name in ("alone", "post", "given")]
    assert "language" in flags[1] and "language" not in flags[0] + flags[2]
    copied = Dataset.from_list([row | {"text": ENGLISH}], features=features())
    import_rationales(file, tmp_path / "copied.jsonl", posts=copied)
    assert "copy" in read_jsonl(tmp_path / "copied.jsonl")[0]["flags_positive"]
    joined = join_rationales(copied, tmp_path / "copied.jsonl")
    assert (joined["rationale_positive"][0], joined["rationale_neutral"][0]) == (ENGLISH, "own")


def test_the_provenance_of_a_row_overrides_that_of_the_file(tmp_path):
    rows = [
        {"id": "a", "rationale_positive": ENGLISH, "provenance": "model x"},
        {"id": "b", "rationale_positive": ENGLISH},
    ]
    file = write_jsonl(tmp_path / "r.jsonl", rows)
    import_rationales(file, tmp_path / "out.jsonl", provenance="mail of a colleague")
    assert [row["provenance"] for row in read_jsonl(tmp_path / "out.jsonl")] == ["model x", "mail of a colleague"]
    assert export_table(tmp_path / "out.jsonl", tmp_path / "again.parquet") == 2
    import_rationales(tmp_path / "again.parquet", tmp_path / "twice.jsonl")
    assert read_jsonl(tmp_path / "twice.jsonl") == read_jsonl(tmp_path / "out.jsonl")


def store_of(folder, answers, *, publish=False) -> RationaleStore:
    """Write a store with one perspective from (id, text of the post, rationale or None)."""
    prompt = load_prompt()
    spec = RationaleSpec(model="m", prompt_hash=prompt.hash, perspectives=("positive",))
    store = RationaleStore.create(folder, spec, prompt)
    with store.writer(0) as writer:
        for post, text, rationale in answers:
            digest = content_hashes({"id": post, "text": text})[1]
            writer.add({"kind": "post", "id": post, "image_sha256": None, "text_sha256": digest, "language": "en"})
            if rationale is not None:
                key = item_key(spec.spec_hash, None, digest, "positive")
                answer = {"kind": "answer", "key": key, "perspective": "positive", "status": "ok", "text": rationale}
                writer.add(answer | {"raw": rationale, "flags": [], "attempts": 1})
        if publish:
            writer.publish()
    return store


@pytest.mark.parametrize("publish", [False, True])
def test_a_store_joins_the_posts_during_a_run_and_afterwards(tmp_path, publish):
    posts = load_posts("sample", num_posts=4)
    answers = [
        (post["id"], post["text"], f"about {post['id']}" if number else None) for number, post in enumerate(posts)
    ]
    store_of(tmp_path / "s", answers[:3], publish=publish)
    joined = load_posts("sample", num_posts=4, rationales=tmp_path / "s")
    assert joined["rationale_positive"] == [None, f"about {posts['id'][1]}", f"about {posts['id'][2]}", None]
    assert joined["rationale_negative"] == posts["rationale_negative"]
    store_of(tmp_path / "s", answers)
    assert load_posts("sample", num_posts=4, rationales=tmp_path / "s")["rationale_positive"][3] is not None


def test_rationales_of_the_present_text_of_a_post_are_joined(tmp_path):
    posts = load_posts("sample", num_posts=2)
    (first, second), text = posts["id"], posts["text"][0]
    store_of(
        tmp_path / "s",
        [(first, "as it was", "old"), (first, text, "new"), (first, "later", "newer"), (second, "x", "kept")],
    )
    assert join_rationales(posts, tmp_path / "s")["rationale_positive"] == ["new", "kept"]
    export_table(tmp_path / "s", tmp_path / "out.jsonl")
    assert join_rationales(posts, tmp_path / "out.jsonl")["rationale_positive"] == ["new", "kept"]


@pytest.mark.parametrize("classes", [("positive", "negative"), ("positive", "neutral", "negative")])
def test_the_format_of_the_authors_is_read_as_it_was_written(tmp_path, classes):
    rows = [
        {"id": "p0", "text": 'say "hi"\nand\tgo', "label": 0, "rationale_positive": '"quoted" at first'},
        {"id": "n7", "text": 'a lone " quote', "label": 1, "rationale_positive": "one\n\ntwo"},
    ]
    rows[1]["rationale_negative"] = "an 'other'"
    schema = features(classes)
    posts = Dataset.from_list([dict.fromkeys(schema) | row for row in rows], features=schema)
    layout = export_authors(posts, tmp_path / "out.tsv")
    name = "ch_mits" if len(classes) == 2 else "mvsa_single"
    back, _ = load_authors(tmp_path, dataset=name, file="out.tsv", images=False)
    columns = ["id", "text", "label", *(f"rationale_{name}" for name in layout.perspectives)]
    assert back.select_columns(columns).to_list() == posts.select_columns(columns).to_list()


def test_exported_image_paths_are_relative_to_the_data_folder(tmp_path, draw):
    draw(tmp_path / "data" / "p" / "p0" / "cover.png")
    write(tmp_path / "data" / "a.tsv", f"1\tp/p0/cover.png\t今天\t{GOOD}\t{BAD}\n")
    posts, _ = load_authors(tmp_path / "data")
    export_authors(posts, tmp_path / "inside.tsv", data_dir=tmp_path / "data")
    assert (tmp_path / "inside.tsv").read_bytes() == (tmp_path / "data" / "a.tsv").read_bytes()
    export_authors(posts, tmp_path / "outside.tsv")
    assert (tmp_path / "outside.tsv").read_text(encoding="utf-8").split("\t")[1] == "p0/image_0.jpg"


def test_posts_that_tsv_cannot_represent_are_refused(tmp_path):
    schema = features(("positive", "negative"))
    row = dict.fromkeys(schema) | {"id": "p0", "text": "x\n1\t2\t3\t4\t5", "label": 0}
    with pytest.raises(ValueError, match="'p0/image_0.jpg' cannot be written"):
        export_authors(Dataset.from_list([row], features=schema), tmp_path / "out.tsv")
    with pytest.raises(ValueError, match="'p0' has no label"):
        export_authors(Dataset.from_list([row | {"text": "x", "label": None}], features=schema), tmp_path / "out.tsv")
    other = Dataset.from_list([row | {"text": "x"}], features=schema).cast_column(
        "label", ClassLabel(names=["a", "b"])
    )
    with pytest.raises(ValueError, match="positive, neutral, negative, got a, b"):
        export_authors(other, tmp_path / "out.tsv")
    assert list(tmp_path.glob("*out.tsv*")) == []


def test_a_file_without_rationales_and_another_suffix_are_refused(tmp_path):
    file = write(tmp_path / "r.csv", "id,words\na,b\n")
    with pytest.raises(ValueError, match="rationale_"):
        import_rationales(file, tmp_path / "out.parquet")
    with pytest.raises(ValueError, match="no column rationale_"):
        export_table(file, tmp_path / "out.parquet")
    with pytest.raises(ValueError, match=".parquet or .jsonl, got '.csv'"):
        import_rationales(file, tmp_path / "out.csv")
