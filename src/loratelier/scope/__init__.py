"""What an adapter changes inside the model: next-token expectations along a prompt."""

from loratelier.scope.change import Change
from loratelier.scope.inspect import inspect_prompt
from loratelier.scope.inspection import Inspection
from loratelier.scope.survey import Survey, survey

__all__ = ["Change", "Inspection", "Survey", "inspect_prompt", "survey"]
