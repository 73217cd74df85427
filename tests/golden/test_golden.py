"""The C of three small networks, as committed: read it in review, compile it here.

`pytest tests/golden --update-golden` writes it anew.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import toolchain
from tests.golden import models

HERE = Path(__file__).parent
GOLDEN = {
    "mlp": (models.mlp, {}, (6,)),
    "separable": (models.separable, {"quantize": "int8"}, (2, 10, 8)),
    "residual": (models.residual, {"quantize": "int8", "per_channel": True, "io": "int8"}, (3, 6, 6)),
}
KEPT = ("{}.h", "{}.c", "{}_weights.h", "{}_vectors.h")


@pytest.mark.parametrize("name", GOLDEN)
def test_the_generated_c_is_the_committed_c(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    make, options, shape = GOLDEN[name]
    if "quantize" in options:
        options = options | {"calibration": np.random.default_rng(0).normal(size=(32, *shape)).astype(np.float32)}
    toolchain.export(make(), out=tmp_path / name, name=name, **options)
    for pattern in KEPT:
        file = pattern.format(name)
        written = (tmp_path / name / file).read_text()
        if request.config.getoption("--update-golden"):
            (HERE / name).mkdir(exist_ok=True)
            (HERE / name / file).write_text(written)
        assert written == (HERE / name / file).read_text(), f"{file} changed; look at it, then --update-golden"


@pytest.mark.parametrize("name", GOLDEN)
def test_the_committed_c_passes_its_own_self_test(name: str, tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(
        f'#include "{name}.h"\nstatic _Alignas(16) unsigned char arena[{name.upper()}_ARENA_BYTES];\n'
        f"int main(void) {{ return {name}_init(arena, sizeof arena) || {name}_selftest(arena); }}\n"
    )
    command = ["gcc", "-std=c11", f"-I{HERE / name}", "main.c", HERE / name / f"{name}.c", "-lm", "-o", "program"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 0
