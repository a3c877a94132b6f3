"""Bad arguments of the command line."""

from bad_inputs.case import FOLDER, BadInput

ROWS = [
    BadInput("unknown command", ["trian"], ("unknown command", "Did you mean 'train'")),
    BadInput("unknown argument", ["train", "--learning_rat", "1"], ("--learning_rat", "learning_rate")),
    BadInput("folder without a model", ["predict", FOLDER, "--text", "a"], ("no model", "output_dir")),
]
