"""Weights as a header: literals that read back, names that C takes, C that builds."""

import re
import subprocess

import numpy as np
import pytest

from toolchain.errors import InputError
from toolchain.report.header import identifiers, symmetric_int8, text


def test_float_literals_read_back_to_the_bit():
    values = np.array([0.1, -1e-7, 3.4e38, 1e-45, 0, -0.0, 123456.78], np.float32)
    words = re.findall(r"[-\d.e+]+(?=f[,}])", text("w.h", {"a": values}, "float32"))
    np.testing.assert_array_equal(np.array(words, np.float32), values)


def test_int8_is_symmetric():
    integers, scale = symmetric_int8(np.array([-2.0, 0.0, 1.0, 2.0], np.float32))
    assert integers.tolist() == [-127, 0, 64, 127]
    assert scale == pytest.approx(2 / 127)
    assert symmetric_int8(np.zeros(3, np.float32))[0].tolist() == [0, 0, 0]


def test_names_are_identifiers_and_unique():
    assert identifiers(["a_b", "a_b", "c"]) == ["a_b", "a_b_2", "c"]


def test_the_header_compiles(tmp_path):
    weights = {
        "conv1.weight": np.ones((2, 3), np.float32),
        "conv1/weight": np.arange(3, dtype=np.int64),
        "scalar": np.float32(2),
        "empty */": np.zeros((0,), np.float32),
        "class": np.array([True]),
    }
    for quantize in ("float32", "int8"):
        (tmp_path / "w.h").write_text(text("w.h", weights, quantize))
        (tmp_path / "m.c").write_text('#include "w.h"\nint main(void) { return 0; }\n')
        flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wno-unused-const-variable", "-Wno-unused-variable"]
        subprocess.run(["gcc", *flags, "-Werror", "-fsyntax-only", "m.c"], cwd=tmp_path, check=True)


def test_nan_is_refused():
    with pytest.raises(InputError, match=r"conv\.w: found NaN"):
        text("w.h", {"conv.w": np.array([np.nan], np.float32)}, "float32")
