"""Configurations, weights and inputs of the networks."""

from bad_inputs.case import BadInput

ROWS: list[BadInput] = []
