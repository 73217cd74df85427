"""The arena's drawing: every buffer in its place and time, the lower bound, nothing that needs a network."""

import re
from xml.etree import ElementTree as ET

import pytest

from tests.models import convnet
from toolchain import export
from toolchain.report.html import HEIGHT, WIDTH, arena_boxes, step_ticks


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return export(convnet(folder / "net.onnx"), out=folder / "net", name="net", verify=False)


def drawing(exported):
    html = (exported.out / "report.html").read_text()
    return ET.fromstring(re.search(r"<svg.*?</svg>", html, re.DOTALL)[0])  # noqa: S314 - our own text


def test_rectangles_are_the_buffers(exported):
    arena = exported.manifest["arena"]
    boxes = [each.attrib for each in drawing(exported).iter("rect")]
    assert len(boxes) == len(arena["buffers"]) >= 3
    steps = 2 + max(row["steps"][1] for row in arena["buffers"])
    for box, row in zip(boxes, arena["buffers"], strict=True):
        x, y, width, height = (float(box[name]) for name in ("x", "y", "width", "height"))
        assert x == pytest.approx(WIDTH * (row["steps"][0] + 1) / steps, abs=0.01)
        assert x + width == pytest.approx(WIDTH * (row["steps"][1] + 2) / steps, abs=0.01)
        assert HEIGHT - y == pytest.approx(HEIGHT * (row["offset"] + row["bytes"]) / arena["bytes"], abs=0.02)
        assert height == pytest.approx(HEIGHT * row["bytes"] / arena["bytes"], abs=0.01)


def test_the_lower_bound_is_drawn_and_said(exported):
    arena = exported.manifest["arena"]
    assert 0 < arena["lower_bound"] <= arena["bytes"]
    (line,) = drawing(exported).iter("line")
    assert HEIGHT - float(line.attrib["y1"]) == pytest.approx(HEIGHT * arena["lower_bound"] / arena["bytes"], abs=0.01)
    assert f"Dashed: {arena['lower_bound']}" in (exported.out / "report.html").read_text()


def test_buffers_say_what_they_are_written_over(exported):
    rows = {row["name"]: row for row in exported.manifest["arena"]["buffers"]}
    pairs = [(row, rows[name]) for row in rows.values() for name in row["over"]]
    assert pairs
    for written, read in pairs:
        assert written["steps"][0] == read["steps"][1]
        assert written["offset"] < read["offset"] + read["bytes"]
        assert read["offset"] < written["offset"] + written["bytes"]


def test_labels_only_where_they_fit():
    buffers = [{"name": f"buffer{i}", "offset": 0, "bytes": 64, "steps": [i, i], "over": []} for i in range(300)]
    manifest = {"arena": {"bytes": 64, "lower_bound": 64, "buffers": buffers}}
    assert not any(box["text"] for box in arena_boxes(manifest))
    assert len(step_ticks(manifest)) < 50
    few = {"arena": {"bytes": 64, "lower_bound": 64, "buffers": buffers[:4]}}
    assert [box["text"] for box in arena_boxes(few)] == [f"buffer{i}" for i in range(4)]
