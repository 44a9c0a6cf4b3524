"""Keeps transformers' own bars and remarks from drowning ours while a base is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


def reason(error: Exception) -> str:
    """Return what a library said was wrong, as one line for a person."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # The text of a KeyError is the bare key, which says nothing alone.
    said = f"{type(error).__name__}: {lines[0]}" if isinstance(error, KeyError) else lines[0]
    return said[:200]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers inside the block, and give it back its voice after."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
