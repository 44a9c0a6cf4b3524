"""Sources of every kind, each read into conversations and texts; recognised by what is in them."""

from loratelier.corpus.importers.recognise import Settings, read

__all__ = ["Settings", "read"]
