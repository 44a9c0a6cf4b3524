"""The shapes in which a row's messages can be written; each can be read back to the same."""

from loratelier.corpus.formats.labels import Messages
from loratelier.corpus.formats.shapes import FORMATS, Rendered, parse, render

__all__ = ["FORMATS", "Messages", "Rendered", "parse", "render"]
