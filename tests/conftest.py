"""What tests share: where the real models are, and a seeded generator per test."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


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
