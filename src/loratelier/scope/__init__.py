"""What an adapter changes inside the model: next-token expectations along a prompt."""

from loratelier.scope.inspect import inspect_prompt
from loratelier.scope.inspection import Inspection

__all__ = ["Inspection", "inspect_prompt"]
