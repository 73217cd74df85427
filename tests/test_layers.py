"""The house: each layer imports only what stands left of it, and frameworks only inside functions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "toolchain"
RANKS = {
    name: rank
    for rank, names in enumerate(
        [
            ["errors", "config", "fixedpoint", "templating"],
            ["ir"],
            ["ops"],
            ["interpret", "samples"],
            ["importers", "passes", "quantize"],
            ["lower"],
            ["plan"],
            ["emit"],
            ["verify"],
            ["targets"],
            ["report"],
            ["options", "staging"],
            ["acceptance"],
            ["pipeline"],
            ["cli"],
        ]
    )
    for name in names
}
SIBLINGS_APART = {"importers", "passes", "quantize"}
FRAMEWORKS = {"torch", "tensorflow", "keras", "onnx", "onnxruntime", "tflite", "onnxscript"}
NUMPY_ONLY = {"ir", "ops", "fixedpoint", "interpret", "passes", "quantize", "lower", "plan"}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> list[str]:
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
            if node.module == "toolchain":
                found += [f"toolchain.{alias.name}" for alias in node.names]
    return found


def type_checking_blocks(tree: ast.AST) -> set[ast.AST]:
    guarded = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    return {inner for block in guarded for inner in ast.walk(block)}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_lower_layers(path: Path) -> None:
    tree = ast.parse(path.read_text())
    own = layer(path)
    assert own in RANKS, f"{own} is not a layer of the house"
    guarded = type_checking_blocks(tree)
    for node in ast.walk(tree):
        if node in guarded or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for name in imports(node):
            if not name.startswith("toolchain."):
                continue
            other = name.split(".")[1]
            if other in {own, "__version__"}:
                continue
            below = RANKS[other] < RANKS[own] or (RANKS[other] == RANKS[own] and own not in SIBLINGS_APART)
            assert below, f"{path.name} ({own}) imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_frameworks_are_imported_where_they_are_used(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in tree.body:
        for name in imports(node) if isinstance(node, ast.Import | ast.ImportFrom) else []:
            top = name.split(".")[0]
            assert top not in FRAMEWORKS - {"onnx", "tflite"}, f"{path.name} imports {name} when it is loaded"
    if layer(path) in NUMPY_ONLY:
        used = {name.split(".")[0] for name in imports(tree)}
        assert not used & (FRAMEWORKS | {"jinja2", "typer", "rich"}), path


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    printed = [n for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]
    assert layer(path) == "cli" or not printed
