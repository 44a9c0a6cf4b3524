"""The engine: many requests in one batch, each wearing its own."""

from loratelier.serve.engine.asked import Asked, Busy, Event, Mix, Sampling, Token
from loratelier.serve.engine.engine import Engine, EngineSettings, Stats
from loratelier.serve.engine.ticket import Ticket

__all__ = [
    "Asked",
    "Busy",
    "Engine",
    "EngineSettings",
    "Event",
    "Mix",
    "Sampling",
    "Stats",
    "Ticket",
    "Token",
]
