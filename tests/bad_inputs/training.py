"""Training: recipes, splits, classes, encoders, folders."""

from bad_inputs.case import BadInput

ROWS: list[BadInput] = []
