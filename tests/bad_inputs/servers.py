"""Addresses and replies of servers of a large multimodal model."""

from bad_inputs.case import BadInput

ROWS: list[BadInput] = []
