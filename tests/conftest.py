"""What tests share: where the real models are, and a seeded generator per test."""

from __future__ import annotations

import importlib.util
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FRAMEWORKS = ("torch", "onnxscript", "tensorflow", "onnxruntime")
"""Extras: a test module that imports one takes it as its oracle, and is left out where it is not installed."""
ABSENT = tuple(name for name in FRAMEWORKS if importlib.util.find_spec(name) is None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and labelled data; the test is skipped where it is absent."""
    folder = Path(os.environ.get("INLAY_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "models").is_dir():
        pytest.skip(f"no models at {folder} (set INLAY_SHARED)")
    return folder


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name: the same numbers every time, others for every test."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Whether to leave out a test module: it imports a framework that is not installed."""
    if not ABSENT or collection_path.suffix != ".py":
        return None
    importing = rf"^(?:import|from) (?:{'|'.join(ABSENT)})\b"
    return True if re.search(importing, collection_path.read_text(), re.MULTILINE) else None


def pytest_report_header() -> str | None:
    return f"not installed, so without the tests against them: {', '.join(ABSENT)}" if ABSENT else None
