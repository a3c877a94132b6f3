"""Inputs of the processor and of the pipeline."""

from bad_inputs.case import BadInput

ROWS: list[BadInput] = []
