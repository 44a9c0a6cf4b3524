"""Synthesis: new rows from a corpus by a model, over an API or on this machine.

:class:`~loratelier.corpus.synthesize.local.Local` is not imported here: who asks an API does not
wait for torch.
"""

from loratelier.corpus.synthesize.api import Api
from loratelier.corpus.synthesize.asked import Answer, Asked, Failed, Halted
from loratelier.corpus.synthesize.cost import Cost, Rates
from loratelier.corpus.synthesize.run import Plan, Settings, Synthesized, plan, synthesize
from loratelier.corpus.synthesize.tasks import TASKS

__all__ = [
    "TASKS",
    "Answer",
    "Api",
    "Asked",
    "Cost",
    "Failed",
    "Halted",
    "Plan",
    "Rates",
    "Settings",
    "Synthesized",
    "plan",
    "synthesize",
]
