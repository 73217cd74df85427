import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.emit.environment import c_float, c_int, table

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(floats)
def test_float_literals_read_back_to_the_bit(value):
    literal = c_float(value)
    assert literal.endswith("f")
    assert "." in literal or "e" in literal
    assert np.float32(literal[:-1]).tobytes() == np.float32(value).tobytes()


def test_float_literals_without_a_value():
    assert np.float32(c_float(float("inf"))[:-1]) == np.finfo(np.float32).max
    with pytest.raises(ValueError, match="NaN"):
        c_float(float("nan"))


@given(st.integers(-(2**63), 2**64 - 1))
def test_integer_literals_read_back(value):
    named = {"INT32_MIN": -(2**31), "INT64_MIN": -(2**63)}
    literal = c_int(value)
    assert named.get(literal, None if literal in named else int(literal.rstrip("uUL"))) == value


def test_tables_have_16_right_aligned_columns():
    lines = table(np.arange(-20, 20, dtype=np.int8)).split("\n")
    assert len(lines) == 3
    assert lines[0].startswith("    -20, -19,")
    assert lines[1].startswith("     -4,  -3,")
    assert not lines[2].endswith(",")
