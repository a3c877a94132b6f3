"""Ids of posts as tables and datasets hold them: texts, integers, or numbers with decimals."""

import math
import re
from typing import Any

from dataset_scripts.reading.tables import cell_text

FLOAT_ID_NOTE = "id written as a number with decimals, read as an integer"
DAMAGED_ID = "is a rounded number: its last digits are lost. Write the ids as texts in the table"
_INTEGRAL = re.compile(r"(-?\d+)\.0+")
_ROUNDED = re.compile(r"\d(\.\d+)?[eE]\+\d+")  # as spreadsheets and pandas write a long number
_MAX_EXACT = 2**53  # of a float


def read_id(value: Any) -> tuple[str | None, str | None]:
    """Convert an id to text.

    Returns:
        The id, None if blank; and `FLOAT_ID_NOTE`, `DAMAGED_ID` or None.
    """
    if isinstance(value, float) and not math.isnan(value):
        exact = value.is_integer() and abs(value) < _MAX_EXACT
        return (str(int(value)), FLOAT_ID_NOTE) if exact else (str(value), DAMAGED_ID)
    text = cell_text(value)
    if text is None:
        return None, None
    if _ROUNDED.fullmatch(text):
        return text, DAMAGED_ID
    integral = _INTEGRAL.fullmatch(text)
    return (integral[1], FLOAT_ID_NOTE) if integral else (text, None)
