"""The command line: one file a verb, no logic."""

from loratelier.cli.app import main

__all__ = ["main"]
