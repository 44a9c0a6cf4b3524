"""Structures of thought: templates with markers, rows written in them, their recognition."""

from loratelier.corpus.structures.marks import Mark, Recognition, recognise
from loratelier.corpus.structures.model import Part, Structure

__all__ = ["Mark", "Part", "Recognition", "Structure", "recognise"]
