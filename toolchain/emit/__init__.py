"""Program -> {file name: text}. Templates lay text out; every number in it comes from the program."""

from toolchain.emit.emitter import Vectors, emit

__all__ = ["Vectors", "emit"]
