"""The base: a model, its tokenizer, and a fingerprint of its weights."""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from loratelier.base.fingerprint import of_state_dict

# Which fingerprint a model object has, so that whoever holds only the model can still tell.
_known: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Base:
    """A base model as it was found; nothing in the workshop writes to its weights.

    ``fingerprint`` is taken over the weights as they are stored, so it is the same whatever dtype,
    device or quantization the base is loaded with.
    """

    model: Any
    tokenizer: Any
    fingerprint: str
    spec: str
    name: str
    dtype: torch.dtype
    quantization: str | None
    device: torch.device

    def __post_init__(self) -> None:
        _known[self.model] = self.fingerprint

    @classmethod
    def of(cls, model: Any, tokenizer: Any, *, name: str) -> "Base":
        """Wrap a model that is in memory already; its fingerprint is that of its saved weights."""
        model.eval().requires_grad_(False)
        return cls(
            model=model,
            tokenizer=tokenizer,
            fingerprint=of_state_dict(model),
            spec=name,
            name=name,
            dtype=model.dtype,
            quantization=None,
            device=model.device,
        )

    @property
    def context(self) -> int | None:
        """How many tokens the model was made for, where its config says so."""
        length = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(length) if length else None


def known_fingerprint(model: nn.Module) -> str | None:
    """Return the fingerprint of a model that came from a :class:`Base`, else None."""
    return _known.get(model)
