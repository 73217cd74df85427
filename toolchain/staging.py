"""The folder an export writes: it appears whole or not at all, and only where nothing foreign is lost."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from toolchain.errors import InputError
from toolchain.report import facts

UNWRITABLE = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG])
"""Errors of a disk that takes no more, or not this name."""


def writable_folder(out: Path) -> Path:
    """`out` when an export may go there: new, empty, or written by inlay before. Raises InputError otherwise."""
    try:
        _check_free(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be a folder ({error.strerror}); choose another one as --out") from None
    return out


def _check_free(out: Path) -> None:
    if out.is_dir():
        if any(out.iterdir()) and not is_export(out):
            raise InputError(f"{out}: is not empty and inlay did not write it; choose a new folder as --out")
    elif out.exists() or out.is_symlink():
        raise InputError(f"{out}: is a file, expected a folder for --out")
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir():
        raise InputError(f"{out}: {above.name} is a file, expected a folder")


def is_export(folder: Path) -> bool:
    """Whether inlay wrote this folder."""
    try:
        return bool(facts.read_manifest(folder)["generator"] == facts.GENERATOR)
    except InputError:
        return False


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that takes its place at the end, or vanishes with every trace on an error."""
    made = _make_parents(out)
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.absolute().parent))
        folder.chmod(0o755)
        yield folder
        _replace(out, folder)
    except BaseException as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in made:
            parent.rmdir()
        if isinstance(error, PermissionError):
            raise InputError(f"{out}: no permission to write there; choose another folder as --out") from None
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise InputError(
                f"{out}: cannot be written ({error.strerror}); make room or choose another --out"
            ) from None
        raise


def _make_parents(out: Path) -> list[Path]:
    """Create the folders above `out`; the created ones, innermost first."""
    missing = [parent for parent in out.absolute().parents if not parent.exists()]
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise InputError(f"{out}: cannot be made ({error.strerror}); choose another folder as --out") from None
    return missing


def _replace(out: Path, folder: Path) -> None:
    """Put `folder` where `out` is; files in `out` that inlay did not write move along."""
    if not out.exists():
        folder.rename(out)
        return
    ours = {*facts.read_manifest(out)["files"], facts.FILE} if is_export(out) else set()
    for entry in list(out.iterdir()):
        if entry.name not in ours and not (folder / entry.name).exists():
            shutil.move(str(entry), folder / entry.name)
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.absolute().parent))
    out.rename(old / "old")
    folder.rename(out)
    shutil.rmtree(old)
