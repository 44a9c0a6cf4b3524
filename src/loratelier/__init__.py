"""LoRAtelier: a workshop for LoRA adapters. This module is the public surface, nothing else.

Names are imported when they are first used, so that ``import loratelier`` and ``--help`` do not
wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loratelier.adapter import Adapter
    from loratelier.bank import AdapterBank
    from loratelier.base import Base, load_base, with_tokens
    from loratelier.check import Verdict, check_adapter
    from loratelier.compose import Conflict, compare_adapters, merge_adapters
    from loratelier.corpus import Corpus, build_corpus, repair_text
    from loratelier.edit import Edit, set_distribution
    from loratelier.kit.errors import InputError
    from loratelier.route import Decision, Router
    from loratelier.scope import Attribution, Inspection, attribute, inspect_prompt
    from loratelier.train import Recipe, train

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "AdapterBank",
    "Attribution",
    "Base",
    "Conflict",
    "Corpus",
    "Decision",
    "Edit",
    "InputError",
    "Inspection",
    "Recipe",
    "Router",
    "Verdict",
    "attribute",
    "build_corpus",
    "check_adapter",
    "compare_adapters",
    "inspect_prompt",
    "load_base",
    "merge_adapters",
    "repair_text",
    "set_distribution",
    "train",
    "with_tokens",
]

_ROOM_OF = {
    "Adapter": "loratelier.adapter",
    "AdapterBank": "loratelier.bank",
    "Attribution": "loratelier.scope",
    "Base": "loratelier.base",
    "Conflict": "loratelier.compose",
    "Corpus": "loratelier.corpus",
    "Decision": "loratelier.route",
    "Edit": "loratelier.edit",
    "InputError": "loratelier.kit.errors",
    "Inspection": "loratelier.scope",
    "Recipe": "loratelier.train",
    "Router": "loratelier.route",
    "attribute": "loratelier.scope",
    "build_corpus": "loratelier.corpus",
    "compare_adapters": "loratelier.compose",
    "Verdict": "loratelier.check",
    "check_adapter": "loratelier.check",
    "inspect_prompt": "loratelier.scope",
    "load_base": "loratelier.base",
    "merge_adapters": "loratelier.compose",
    "repair_text": "loratelier.corpus",
    "set_distribution": "loratelier.edit",
    "train": "loratelier.train",
    "with_tokens": "loratelier.base",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'loratelier' has no attribute {name!r}")
    value = getattr(import_module(_ROOM_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
