"""What an adapter changes inside the model: expectations, attention, layers, sites, weights."""

from loratelier.scope.attention import look_at_attention
from loratelier.scope.attention_shift import AttentionShift
from loratelier.scope.attribute import Attribution, attribute
from loratelier.scope.change import Change
from loratelier.scope.inspect import inspect_prompt
from loratelier.scope.inspection import Inspection
from loratelier.scope.survey import Survey, survey

__all__ = [
    "AttentionShift",
    "Attribution",
    "Change",
    "Inspection",
    "Survey",
    "attribute",
    "inspect_prompt",
    "look_at_attention",
    "survey",
]
