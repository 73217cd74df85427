"""Preprocessor conditions around what only some bodies of the kernels use."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby

from toolchain.ops.base import Body

DSP_MACRO = "KERNEL_DSP"
MVE_MACRO = "KERNEL_MVE"
MACROS = (DSP_MACRO, MVE_MACRO)
"""What NAME.c defines as 0 or 1; a core with MVE has both."""
EVERY = frozenset(Body)
_CONDITIONS: Mapping[str, frozenset[Body]] = {
    MVE_MACRO: frozenset({Body.MVE}),
    DSP_MACRO: frozenset({Body.DSP, Body.MVE}),
    f"!{DSP_MACRO}": frozenset({Body.PORTABLE}),
    f"!{MVE_MACRO}": frozenset({Body.PORTABLE, Body.DSP}),
    f"{DSP_MACRO} && !{MVE_MACRO}": frozenset({Body.DSP}),
    f"!{DSP_MACRO} || {MVE_MACRO}": frozenset({Body.PORTABLE, Body.MVE}),
}


def condition(bodies: Collection[Body], excluded: Collection[Body] = ()) -> str:
    """Return the expression that holds for these bodies alone, as far as not `excluded`; empty for all.

    >>> condition({Body.DSP, Body.MVE}), condition({Body.DSP}), condition({Body.DSP}, {Body.MVE}), condition(set(Body))
    ('KERNEL_DSP', 'KERNEL_DSP && !KERNEL_MVE', 'KERNEL_DSP', '')
    """
    if set(bodies) == EVERY:
        return ""
    return next(text for text, holds in _CONDITIONS.items() if holds - set(excluded) == set(bodies))


def merged(items: Iterable[Mapping[Body, Sequence[str]]]) -> list[str]:
    """Return the lines of all items in order, neighbours that depend on the body under one #if."""
    lines: list[str] = []
    for same, run in groupby(items, lambda item: len({tuple(item.get(body, ())) for body in Body}) == 1):
        parts = list(run)
        texts = {body: [line for item in parts for line in item.get(body, ())] for body in Body}
        lines += texts[Body.PORTABLE] if same else chain(texts)
    return lines


def chain(texts: Mapping[Body, Sequence[str]]) -> list[str]:
    """Return #if, #elif, #else around the lines of each body, equal ones once."""
    groups: dict[tuple[str, ...], list[Body]] = {}
    for body in reversed(Body):
        groups.setdefault(tuple(texts[body]), []).append(body)
    lines: list[str] = []
    done: set[Body] = set()
    ordered = sorted(groups.items(), key=lambda group: not group[0])
    for text, bodies in ordered:
        if text and len(groups) > 1:
            last = done | set(bodies) == EVERY
            lines.append("#else" if last and done else f"#{'elif' if done else 'if'} {condition(bodies, done)}")
        lines += text
        done |= set(bodies)
    return [*lines, "#endif"] if len(groups) > 1 else lines
