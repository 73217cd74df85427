"""What the README shows is what happens: its C compiles and classifies, its Python and its commands run."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

import toolchain
from tests.conftest import REPOSITORY
from tests.flags import STRICT
from tests.test_generated import CALIBRATION, DIGITS
from toolchain.cli import app, run

README = (REPOSITORY / "README.md").read_text()

MAIN = """
#include <stdio.h>
int main(void)
{
    float image[DIGITS_INPUT0_ELEMENTS];
    if (digits_init(arena, sizeof arena) != DIGITS_OK || digits_selftest(arena) != DIGITS_OK) {
        return 1;
    }
    while (fread(image, sizeof image, 1, stdin) == 1) {
        printf("%d\\n", classify(image));
    }
    return 0;
}
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_c_classifies_digits(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    toolchain.export(DIGITS / "digits.onnx", out=folder, name="digits", quantize="int8", calibration=CALIBRATION)
    (code,) = blocks("c")
    prototype = code.replace("int classify(", "int classify(const float *image);\nint classify(", 1)
    (folder / "main.c").write_text(prototype + MAIN)
    sources = [folder / "main.c", folder / "digits.c"]
    subprocess.run(["gcc", *STRICT, "-O2", *sources, "-o", folder / "main", "-lm"], check=True)
    data = np.load(DIGITS / "evaluation.npz")
    image = data[next(name for name in data.files if name != "y")].astype(np.float32)
    found = subprocess.run([folder / "main"], input=image.tobytes(), capture_output=True, check=True).stdout.split()
    assert (np.array(found, int) == data["y"]).mean() >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_the_python_runs(framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip({"keras": "tensorflow"}.get(framework, framework), reason=f"needs {framework}")
    (code,) = (block for block in blocks("python") if f"import {framework}" in block)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - the README's own text
    assert (tmp_path / "build/net/net.c").is_file()


def test_every_flag_it_names_exists() -> None:
    import typer

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = {flag for command in commands.values() for option in command.params for flag in option.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) <= known


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines() if "make" in line])
def test_every_make_target_it_names_exists(line: str) -> None:
    target = shlex.split(line, comments=True)[1]
    assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)


def test_the_digits_command_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = (line for block in blocks("sh") for line in block.splitlines() if line.startswith("inlay export digits"))
    data = {"digits.onnx": "digits.onnx", "samples.npz": "calibration.npz", "labelled.npz": "evaluation.npz"}
    words = [str(DIGITS / data[word]) if word in data else word for word in shlex.split(line)[1:]]
    words[words.index("--out") + 1] = str(tmp_path / "digits")
    assert run(words) == 0
    assert "accuracy C" in capsys.readouterr().out
