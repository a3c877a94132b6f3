"""Images and their paths."""

from bad_inputs.case import BadInput

ROWS: list[BadInput] = []
