"""Names in C: which a model may have, how records are called, and the user's names inside comments."""

from __future__ import annotations

import re

from toolchain.errors import InputError

_KEYWORD_LIST = (
    "alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl const constexpr "
    "const_cast continue decltype default delete do double dynamic_cast else enum explicit export extern false float "
    "for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private "
    "protected public register reinterpret_cast restrict return short signed sizeof static static_assert static_cast "
    "struct switch template this thread_local throw true try typedef typeid typename typeof union unsigned using "
    "virtual void volatile wchar_t while xor xor_eq"
)
_KEYWORDS = frozenset(_KEYWORD_LIST.split())
_HEADER_LIST = (
    "assert complex ctype errno fenv inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic "
    "stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype"
)
_HEADERS = frozenset(_HEADER_LIST.split())
_LIBRARY = frozenset(("exp2", "exp10", "log2", "log10", "atan2", "j0", "j1", "y0", "y1", "pow10"))
"""Functions that compilers know by name and that a macro name plus a step index may spell."""
LONGEST_NAME = 48
"""Characters: C99 promises 31 significant ones for external names, today's linkers far more."""
_DTYPE_SUFFIX = re.compile(r"_(?:[su](?:8|16|32|64)|f32|b8)$")


def check_model_name(name: str) -> str:
    """Return `name` if functions, macros and files can be named after it. Raises InputError otherwise."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        suggestion = identifier(name)
        raise InputError(
            f"--name: {name!r} is not a C identifier, expected letters, digits and _ beginning with a letter; "
            f"try --name {suggestion}"
        )
    if name in _KEYWORDS or name.lower() in _HEADERS:
        kind = "keyword of C or C++" if name in _KEYWORDS else "header of the C library"
        raise InputError(f"--name: {name!r} is a {kind}, expected a name of your own; try --name {name}_model")
    if len(name) > LONGEST_NAME:
        raise InputError(f"--name: {len(name)} characters, expected at most {LONGEST_NAME}")
    return name


def identifier(text: str) -> str:
    """Return a valid model name near to `text`.

    >>> identifier("3-class net.v2"), identifier("float"), identifier("模型")
    ('model_3_class_net_v2', 'float_model', 'model')
    """
    cleaned = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[: LONGEST_NAME - len("model_")].rstrip("_")
    if not cleaned:
        return "model"
    if cleaned[0].isdigit():
        return f"model_{cleaned}"
    return f"{cleaned}_model" if cleaned in _KEYWORDS or cleaned.lower() in _HEADERS else cleaned


def record_name(macro: str, symbol: str, step: int) -> str:
    """Return the C name of a step's record: after the kernel's macro, or its symbol where that says something else.

    >>> record_name("conv", "conv_clamped_s8", 0), record_name("unary", "exp_f32", 2)
    ('conv0', 'exp_2')
    """
    stem = _DTYPE_SUFFIX.sub("", macro if symbol.startswith(macro) else symbol)
    name = f"{stem}{step}"
    return f"{stem}_{step}" if name in _LIBRARY or stem[-1].isdigit() else name


def comment(text: str) -> str:
    r"""Return `text` as one line that is harmless inside a C comment.

    >>> comment("a/*b*/\nc\\"), comment("wei??/rd"), comment("größe")
    ('a/ *b* / c/', 'wei? ?/rd', 'gr__e')
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = "".join(c if c.isascii() else "_" for c in line).replace("\\", "/")
    while "??" in line:
        line = line.replace("??", "? ?")
    return re.sub(r"(?<=\*)(?=/)|(?<=/)(?=\*)", " ", line)
