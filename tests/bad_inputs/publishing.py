"""Folders and cards to publish."""

from bad_inputs.case import BadInput

ROWS: list[BadInput] = []
