"""`python -m toolchain.cli` is `inlay`."""

from toolchain.cli import main

main()
