"""Errors of the user's making. Each is one line: subject, found, expected, what to do."""

from __future__ import annotations

from collections.abc import Sequence


class InlayError(Exception):
    """Anything the user can mend. The command line prints it and exits with status 2."""


class InputError(InlayError):
    """A file, a flag or an array that cannot be used."""


class UnsupportedError(InlayError):
    """A model that holds layers without a C form; `problems` names all of them, one line each."""

    def __init__(self, subject: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        listed = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(f"{subject}: {len(self.problems)} unsupported layer(s){listed}")


class CheckFailedError(InlayError):
    """A promise that does not hold (parity, budget, accuracy). Exit status 1."""
