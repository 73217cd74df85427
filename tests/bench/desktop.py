"""The same C on this machine beside LiteRT with XNNPACK: one thread each, in turns within one process, medians."""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

FLAGS = ("-std=c99", "-O3", "-march=native", "-shared", "-fPIC")
COMPILERS = ("gcc", "clang")
LITERT = "LiteRT"
ROUNDS, SLICE = 80, 2e-3
"""Turns of each, and the seconds that one takes."""
ALIGNED = 64

Run = Callable[[], object]


def missing() -> str | None:
    """Why nothing can be measured, None where it can."""
    if _interpreter() is None:
        return "tensorflow is not installed"
    return None if any(map(shutil.which, COMPILERS)) else f"no compiler, expected {' or '.join(COMPILERS)}"


def measure(model: Path, folder: Path, name: str) -> dict[str, float]:
    """Microseconds, of processor time, of a run of the .tflite file `model` and of its export in `folder`.

    {LITERT: ..., and each compiler that is there}.
    """
    runs = {LITERT: _litert(model)}
    runs |= {compiler: _native(folder, name, compiler) for compiler in COMPILERS if shutil.which(compiler)}
    counts = {who: _repetitions(run) for who, run in runs.items()}
    times: dict[str, list[float]] = {who: [] for who in runs}
    for _ in range(ROUNDS):
        for who, run in runs.items():
            times[who].append(_seconds(run, counts[who]))
    return {who: 1e6 * statistics.median(each) for who, each in times.items()}


def table(networks: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Markdown of {network: {element type: {who: microseconds}}}."""
    types = list(dict.fromkeys(dtype for row in networks.values() for dtype in row))
    who = list(dict.fromkeys(each for row in networks.values() for found in row.values() for each in found))
    heads = [f"{each} {dtype}" for dtype in types for each in who]
    lines = [f"| desktop, µs | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for name, row in networks.items():
        cells = [_cell(row.get(dtype, {}), each) for dtype in types for each in who]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _cell(found: Mapping[str, float], who: str) -> str:
    if who not in found:
        return ""
    return f"{found[who]:,.0f}" + ("" if who == LITERT else f" ({found[who] / found[LITERT]:.1f})")


def _interpreter() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if importlib.util.find_spec("ai_edge_litert") is not None:
        return importlib.import_module("ai_edge_litert.interpreter").Interpreter
    if importlib.util.find_spec("tensorflow") is not None:
        return importlib.import_module("tensorflow").lite.Interpreter
    return None


def _litert(model: Path) -> Run:
    interpreter = _interpreter()(str(model), num_threads=1)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(1)
    for each in interpreter.get_input_details():
        noise = rng.normal(size=each["shape"]) * (60 if each["dtype"] is np.int8 else 1)
        interpreter.set_tensor(each["index"], noise.astype(each["dtype"]))
    invoke: Run = interpreter.invoke
    return invoke


def _native(folder: Path, name: str, compiler: str) -> Run:
    library = folder / f"{compiler}.so"
    subprocess.run([compiler, *FLAGS, "-o", library, folder / f"{name}.c", "-lm"], check=True)
    run = getattr(ctypes.CDLL(str(library)), f"{name}_run")
    run.argtypes = [ctypes.c_void_p]
    size = json.loads((folder / "manifest.json").read_text())["sizes"]["arena_bytes"]
    arena = ctypes.create_string_buffer(size + ALIGNED)
    start = ctypes.byref(arena, -ctypes.addressof(arena) % ALIGNED)
    return functools.partial(run, start)


def _repetitions(run: Run) -> int:
    """How many runs fill a slice; the first ones warm up."""
    for _ in range(5):
        run()
    return max(round(SLICE / _seconds(run, 1)), 1)


def _seconds(run: Run, count: int) -> float:
    """Of each of `count` runs."""
    start = time.process_time()
    for _ in range(count):
        run()
    return (time.process_time() - start) / count
