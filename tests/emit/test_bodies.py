"""Conditions around what only some bodies of the kernels use, as a real preprocessor reads them."""

from __future__ import annotations

import subprocess
from itertools import product

import pytest

from toolchain.emit import bodies
from toolchain.ops.base import Body

DEFINES = {Body.PORTABLE: (0, 0), Body.DSP: (1, 0), Body.MVE: (1, 1)}


def preprocessed(lines: list[str], body: Body) -> list[str]:
    dsp, mve = DEFINES[body]
    command = ["gcc", "-E", "-P", "-Werror", "-Wundef", f"-DKERNEL_DSP={dsp}", f"-DKERNEL_MVE={mve}", "-"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", text=True, capture_output=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("body", Body)
def test_each_body_sees_its_own_lines(body):
    items = [dict(zip(Body, words, strict=True)) for words in product((["x"], ["y"], ["z"], []), repeat=3)]
    lines, expected = [], []
    for number, item in enumerate(items):
        lines += [f"item{number}", *bodies.chain(item)]
        expected += [f"item{number}", *item[body]]
    assert preprocessed(lines, body) == expected
    assert preprocessed(bodies.merged(items), body) == [word for item in items for word in item[body]]


@pytest.mark.parametrize("body", Body)
def test_conditions(body):
    sets = [{each for each, take in zip(Body, taken, strict=True) if take} for taken in product((0, 1), repeat=3)]
    for chosen in filter(None, sets):
        text = bodies.condition(chosen)
        lines = [f"#if {text}", "yes", "#endif"] if text else ["yes"]
        assert (preprocessed(lines, body) == ["yes"]) == (body in chosen)


def test_neighbours_share_a_condition():
    same, differs = {body: ["same"] for body in Body}, {Body.PORTABLE: ["a"], Body.DSP: ["b"], Body.MVE: ["b"]}
    chain = ["#if KERNEL_DSP", "b", "b", "#else", "a", "a", "#endif"]
    assert bodies.merged([same, differs, differs, same]) == ["same", *chain, "same"]
