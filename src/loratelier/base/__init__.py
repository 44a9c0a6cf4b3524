"""Where a base comes from, how it is known again, and how likely it finds a text."""

from loratelier.base.base import Base
from loratelier.base.load import load_base
from loratelier.base.vocabulary import with_tokens

__all__ = ["Base", "load_base", "with_tokens"]
