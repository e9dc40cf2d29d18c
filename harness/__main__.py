"""The command line as a module: ``python -m harness``."""

from harness.cli import main

main()
