"""Posts of one's own: columns, labels, ids, splits, and published datasets."""

from bad_inputs.case import BadInput

ROWS: list[BadInput] = []
