"""Scene → text → scene: what of a meaning survives being told and being read."""

from loratelier.check.meaning.compare import Meaning, compare_scenes, measure_meaning
from loratelier.check.meaning.faults import Fault
from loratelier.check.meaning.trip import (
    Looped,
    Reading,
    Told,
    Voice,
    read_texts,
    tell_readings,
    tell_scenes,
)

__all__ = [
    "Fault",
    "Looped",
    "Meaning",
    "Reading",
    "Told",
    "Voice",
    "compare_scenes",
    "measure_meaning",
    "read_texts",
    "tell_readings",
    "tell_scenes",
]
