"""The harness around hand-written C that keeps the contract of generated C."""

import gc

import numpy as np
import pytest

from toolchain.errors import CheckFailedError, InputError
from toolchain.ir.types import DType, TensorType
from toolchain.verify.compiler import find_compiler, footprint
from toolchain.verify.harness import CompiledModel, Interface, pack, unpack

HEADER = """
#include <stddef.h>
#include <stdint.h>
#define TWICE_ARENA_BYTES 24u
#define TWICE_OK 0
#define TWICE_INPUT0_BYTES 12u
#define TWICE_OUTPUT0_BYTES 12u
int twice_init(void *arena, size_t bytes);
float *twice_input0(void *arena);
const float *twice_output0(const void *arena);
void twice_run(void *arena);
"""
SOURCE = """
#include "twice.h"
int twice_init(void *arena, size_t bytes) { (void)arena; return bytes < 24u; }
float *twice_input0(void *arena) { return arena; }
const float *twice_output0(const void *arena) { return (const float *)arena + 3; }
static void scale(const float *x, float *y) { for (int i = 0; i < COUNT; ++i) { y[i] = 2.0f * x[i]; } }
void twice_run(void *arena) { float *const a = arena; BODY; scale(a, a + 3); }
"""
TWICE = Interface("twice", (("x", TensorType((1, 3))),), (("y", TensorType((1, 3))),))


def write(folder, count="3", body=""):
    (folder / "twice.h").write_text(HEADER)
    (folder / "twice.c").write_text(SOURCE.replace("COUNT", count).replace("BODY", body))
    return folder


def test_runs_a_batch(tmp_path):
    x = np.arange(12, dtype=np.float32).reshape(4, 1, 3)
    with CompiledModel(write(tmp_path), TWICE, sanitize=True) as model:
        np.testing.assert_array_equal(model.run({"x": x})["y"], 2 * x)


def test_batches_span_child_processes(tmp_path, monkeypatch):
    monkeypatch.setattr("toolchain.verify.harness.CHUNK_BYTES", 48)
    x = np.arange(15, dtype=np.float32).reshape(5, 1, 3)
    with CompiledModel(write(tmp_path), TWICE) as model:
        np.testing.assert_array_equal(model.run({"x": x})["y"], 2 * x)


def test_a_write_outside_the_arena_is_found(tmp_path):
    folder = write(tmp_path, count="4")
    with CompiledModel(folder, TWICE, sanitize=True) as model, pytest.raises(CheckFailedError, match="stopped with"):
        model.run({"x": np.zeros((1, 1, 3), np.float32)})


def test_a_hang_is_a_failed_check(tmp_path):
    folder = write(tmp_path, body="for (volatile int i = 0; i < 1; i = 0) { }")
    with CompiledModel(folder, TWICE, timeout=0.5) as model, pytest.raises(CheckFailedError, match="no answer within"):
        model.run({"x": np.zeros((1, 1, 3), np.float32)})


def test_c_that_does_not_build_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    with pytest.raises(CheckFailedError, match="does not build"):
        CompiledModel(write(tmp_path, body="nonsense"), TWICE)
    assert not list((tmp_path / "t").iterdir())


def test_the_program_goes_with_the_object(tmp_path):
    model = CompiledModel(write(tmp_path), TWICE)
    program = model.program
    del model
    gc.collect()
    assert not program.exists()


def test_missing_compiler_says_what_to_do(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(InputError, match=r"no-such-compiler .*install gcc.*--no-verify"):
        find_compiler()


def test_footprint(tmp_path):
    (tmp_path / "scratch").mkdir()
    size = footprint(write(tmp_path), "twice", tmp_path / "scratch")
    assert 0 < size.flash < 1000
    assert size.stack is not None
    assert size.stack < 200


def test_pack_is_little_endian_and_reversible():
    ends = (("a", TensorType((1, 2), DType.INT16)), ("b", TensorType((1, 1), DType.INT8)))
    arrays = {"a": np.array([[[1, -2]], [[3, 4]]], np.int16), "b": np.array([[[5]], [[-6]]], np.int8)}
    rows = pack(ends, arrays)
    assert rows[0].tolist() == [1, 0, 0xFE, 0xFF, 5]
    back = unpack(ends, rows.tobytes(), 2)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
