"""Libraries: notes that are looked up while an adapter keeps the voice."""

from loratelier.serve.library.library import Found, Library, build_library
from loratelier.serve.library.pieces import read_notes
from loratelier.serve.library.place import citations, with_notes

__all__ = ["Found", "Library", "build_library", "citations", "read_notes", "with_notes"]
