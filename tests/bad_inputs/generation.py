"""Runs that write rationales, and files of batches."""

from bad_inputs.case import BadInput

ROWS: list[BadInput] = []
