"""An adapter at work: conversations in which it is put on, taken off and turned up or down."""

from loratelier.serve.dialogue import Both, Dialogue, Turn
from loratelier.serve.sampling import Sampling

__all__ = ["Both", "Dialogue", "Sampling", "Turn"]
