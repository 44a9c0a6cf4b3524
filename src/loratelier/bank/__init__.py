"""The gated runtime: many adapters over one untouched model."""

from loratelier.bank.bank import AdapterBank
from loratelier.bank.gates import Gate, Mix

__all__ = ["AdapterBank", "Gate", "Mix"]
