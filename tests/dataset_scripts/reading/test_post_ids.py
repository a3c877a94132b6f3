"""Ids of posts: integers, texts, and numbers whose last digits are lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts.reading.post_ids import DAMAGED_ID, FLOAT_ID_NOTE, read_id


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(-(10**25), 10**25))
def test_an_integer_keeps_its_digits_as_number_and_as_text(number):
    assert read_id(number) == read_id(str(number)) == (str(number), None)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(-(2**60), 2**60))
def test_a_float_is_an_id_only_if_it_holds_the_integer_exactly(number):
    post_id, doubt = read_id(float(number))
    assert (post_id, doubt) == (str(number), FLOAT_ID_NOTE) if abs(number) < 2**53 else doubt == DAMAGED_ID


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1.23E+18", ("1.23E+18", DAMAGED_ID)),
        ("1e+18", ("1e+18", DAMAGED_ID)),
        ("1e18", ("1e18", None)),  # may be hexadecimal
        ("123.0", ("123", FLOAT_ID_NOTE)),
        ("1.10", ("1.10", None)),
        (0.5, ("0.5", DAMAGED_ID)),
        (float("nan"), (None, None)),
        (" ", (None, None)),
        (" a ", ("a", None)),
    ],
)
def test_ids_that_are_no_integers(value, expected):
    assert read_id(value) == expected
