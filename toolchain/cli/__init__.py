"""The command line: the only layer that prints or sets an exit status."""

from __future__ import annotations

import sys

import typer

from toolchain.cli.commands import app
from toolchain.errors import CheckFailedError, InlayError

__all__ = ["app", "main", "run"]


def main() -> None:
    """Run the command line: status 0 done, 1 a check failed, 2 the input is wrong."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit status of one command line."""
    try:
        status = typer.main.get_command(app)(args=arguments, prog_name="inlay", standalone_mode=False)
    except CheckFailedError as error:
        return _fail(str(error), 1)
    except InlayError as error:
        return _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except typer.Exit as stop:
        return stop.exit_code
    except Exception as error:
        if not hasattr(error, "format_message"):  # a bug: its traceback is wanted
            raise
        return (
            _fail(f"{' '.join(error.format_message().split()).rstrip('.')}; see inlay --help", 2) if str(error) else 2
        )
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    typer.echo(f"inlay: {message}", err=True)
    return status
