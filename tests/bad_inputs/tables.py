"""Tables that cannot be parsed as their ending says, or that hold damaged rows."""

from bad_inputs.case import BadInput

ROWS: list[BadInput] = []
