"""``python -m loratelier``: the command line, where a launcher wants a module."""

from loratelier.cli import main

main()
