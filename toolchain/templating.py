"""Where the templates are (beside the package in the repository, inside it in the wheel), and how they are read."""

from __future__ import annotations

from pathlib import Path

import jinja2

_INSIDE = Path(__file__).parent / "templates"
TEMPLATES = _INSIDE if _INSIDE.is_dir() else Path(__file__).parent.parent / "templates"


def new_environment(*, autoescape: bool) -> jinja2.Environment:
    """An environment over the templates, strict about names, in which tags leave no blank lines."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=autoescape,  # noqa: S701 - C is no HTML
    )
