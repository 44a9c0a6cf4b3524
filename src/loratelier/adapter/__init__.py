"""An adapter on disk: a PEFT folder and a card, read safely, written whole."""

from loratelier.adapter import store
from loratelier.adapter.adapter import Adapter
from loratelier.adapter.card import BaseRef, Card, CorpusRef, versions

__all__ = ["Adapter", "BaseRef", "Card", "CorpusRef", "store", "versions"]
