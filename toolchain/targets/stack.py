"""Deepest stack of a call, from the call graph that gcc writes with -fcallgraph-info=su."""

from __future__ import annotations

import re
from pathlib import Path

_NODE = re.compile(r'node: \{ title: "([^"]+)" label: "[^"]*?(\d+) bytes \([^"]*"')
_EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')


def deepest_stack(callgraph: Path, root: str) -> int | None:
    """Bytes of the deepest path from `root`, functions of other files counted as 0; None without a call graph."""
    if not callgraph.is_file():
        return None
    text = callgraph.read_text()
    frames = {title: int(size) for title, size in _NODE.findall(text)}
    calls: dict[str, set[str]] = {}
    for source, target in _EDGE.findall(text):
        calls.setdefault(source, set()).add(target)
    return _depth(root, frames, calls) if root in frames else None


def _depth(function: str, frames: dict[str, int], calls: dict[str, set[str]]) -> int:
    below = (_depth(callee, frames, calls) for callee in calls.get(function, ()) if callee != function)
    return frames.get(function, 0) + max(below, default=0)
