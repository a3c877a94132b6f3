"""Bad arguments of the command line, recipes, and places of results."""

from pathlib import Path

from bad_inputs.case import FOLDER, MODEL, BadInput

RECIPE, IN_FILE = f"{FOLDER}/my.yaml", f"{FOLDER}/file/out"
FILE = {"file": "not a folder", "table.csv": "text\nfine\n"}


def train(name: str, words: str, *expected: str, files: dict | None = None) -> BadInput:
    """Build a row of the command `train` on the sample; `words` are its arguments."""
    return BadInput(name, ["train", *words.split()], expected, files=files or {})


def recipe(name: str, content: str | bytes, *expected: str) -> BadInput:
    """Build a row of `train` with a recipe."""
    return BadInput(name, ["train", RECIPE], ("my.yaml", *expected), files={"my.yaml": content})


def output(name: str, *words: str) -> BadInput:
    """Build a row of a command whose results have a file in the place of their folder."""
    return BadInput(name, [*words], ("cannot be written", "file is not a folder"), files=FILE)


def folder_in_place_of_file(folder: Path) -> None:
    (folder / "table.csv").write_text("text\nfine\n")
    (folder / "out.csv").mkdir()


ROWS = [
    # Commands and arguments.
    BadInput("unknown command", ["trian"], ("unknown command", "Did you mean 'train'")),
    BadInput("unknown argument", ["train", "--learning_rat", "1"], ("--learning_rat", "learning_rate")),
    BadInput("unknown argument of predict", ["predict", FOLDER, "--txt", "a"], ("--txt", "--text")),
    BadInput("folder without a model", ["predict", FOLDER, "--text", "a"], ("no model", "output_dir")),
    BadInput("nothing to predict", ["predict", MODEL], ("Nothing to predict", "--text")),
    train("argument without its value", "--learning_rate", "learning_rate", "expected one argument"),
    train("word in place of a number", "--learning_rate fast", "learning_rate", "'fast'"),
    train("rate that is no number", "--learning_rate nan", "`learning_rate` must be positive", "nan"),
    train("negative rate", "--learning_rate -1", "`learning_rate` must be positive"),
    train("endless training", "--num_train_epochs inf", "`num_train_epochs` must be positive", "inf"),
    train("no accumulation", "--gradient_accumulation_steps 0", "`gradient_accumulation_steps` must be positive"),
    train("unknown schedule", "--lr_scheduler_type cosin", "cosin", "cosine"),
    train("unknown optimizer", "--optim adamw_torhc", "--optim", "Did you mean 'adamw_torch'"),
    train("unknown system", "--model brt", "brt", "Did you mean 'bert'"),
    train("unknown metric", "--metric_for_best_model f1", "metric_for_best_model", "f1_macro"),
    train("unused columns", "--remove_unused_columns true", "`remove_unused_columns` must stay false"),
    train("two precisions", "--fp16 true --bf16 true", "fp16", "bf16"),
    train("saving never", "--save_strategy no", "load_best_model_at_end"),
    train("JSON that is broken", '--text_config {"model_type":', "text_config", "is not JSON"),
    train("JSON without a type", '--text_config {"hidden_size":8}', "text_config", "model_type"),
    train("unknown type of encoder", '--text_config {"model_type":"brt"}', "`text_config`", "Did you mean 'bert'"),
    train("options that are no object", "--split_options [1]", "split_options", "JSON object"),
    train("repeated seeds", "--seeds 1 1", "--seeds", "distinct"),
    train("fold that does not exist", '--split folds --split_options {"fold":10}', "fold", "0 to 9"),
    train("jobs without folds", "--jobs 2", "--split folds"),
    BadInput("unknown system to compare", ["compare", "--rows", "brt"], ("brt", "Did you mean 'bert'")),
    BadInput("unknown list of rows", ["compare", "--rows", "ablation"], ("'ablation'", "Did you mean 'ablations'")),
    BadInput("unknown word of a row", ["compare", "--rows", "mpt shufled"], ("'shufled'", "Did you mean 'shuffled'")),
    BadInput("unknown field of a row", ["search", "--rows", "mpt droput=0"], ("'droput'", "Did you mean 'dropout'")),
    BadInput("row twice", ["compare", "--rows", "mpt", "mpt +rationales"], ("'mpt'", "given twice")),
    BadInput("search of a linear baseline", ["search", "--rows", "tfidf"], ("linear baselines", "name a network")),
    BadInput("grid of single values", ["search", "--grid", '{"dropout": 0.1}'], ("`grid`", "lists of values")),
    train("no patience", "--early_stopping_patience 0", "`early_stopping_patience` must be at least 1"),
    # Recipes.
    BadInput("missing recipe", ["train", "mvsa_singel"], ("does not exist", "Did you mean 'mvsa_single'")),
    recipe("recipe that is no YAML", "model: mpt\nseeds: [1,\nlora: true\n", "line 2", "is not YAML"),
    recipe("recipe with a tab", "model: mpt\n\tlora: true\n", "line 2", "is not YAML"),
    recipe("recipe in another encoding", b"model: mpt # \xe9\n", "is not YAML in UTF-8"),
    recipe("recipe with an unknown key", "learning_rat: 1.0e-5\n", "'learning_rat'", "Did you mean 'learning_rate'"),
    recipe("recipe that is a list", "- mpt\n", "must map names"),
    recipe("recipe with a word for a number", "learning_rate: fast\n", "`learning_rate`", "'fast'"),
    recipe("recipe with a number as a word", "learning_rate: 1e-5x\n", "`learning_rate`", "'1e-5x'"),
    recipe("recipe with a list for a number", "num_train_epochs: [3]\n", "`num_train_epochs`", "[3]"),
    recipe("recipe with a word for yes or no", "lora: maybe\n", "`lora`", "'maybe'"),
    # Places of results.
    output("results of train in a file", "train", "--output_dir", IN_FILE),
    output("results of build-dataset in a file", "build-dataset", "sample", "--output_dir", IN_FILE),
    output("results of compare in a file", "compare", "--rows", "majority", "--output_dir", IN_FILE),
    output("predictions in a file", "predict", MODEL, f"{FOLDER}/table.csv", "--output", f"{IN_FILE}.csv"),
    train("results in a folder of the system", "--output_dir /proc/none", "`output_dir` /proc/none cannot be written"),
    BadInput(
        "predictions in the place of a folder",
        ["predict", MODEL, f"{FOLDER}/table.csv", "--output", f"{FOLDER}/out.csv"],
        ("`output` must be a file", "out.csv is a folder"),
        files=folder_in_place_of_file,
    ),
]
