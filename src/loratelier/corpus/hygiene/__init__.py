"""Cleaning: what is in the rows that should not be learned, found, reported, masked or left out."""

from loratelier.corpus.hygiene.stage import Washed, washed
from loratelier.corpus.hygiene.wish import MASKS, Hygiene

__all__ = ["MASKS", "Hygiene", "Washed", "washed"]
