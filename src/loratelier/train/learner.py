"""What is differentiated: the loss of one pack, whatever the objective."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from loratelier.base.decoder import Reader, head_of
from loratelier.base.losses import linear_kl
from loratelier.base.packed import Apart
from loratelier.train.packing import Pack
from loratelier.train.recipe import Recipe


class Learner(nn.Module):
    """A model with its objective; called with a pack it returns the loss, weighted and summed.

    ``model`` is the transformers model with the adapter's layers in it; ``peft`` is PEFT's model
    around it, whose adapter can be switched off: the base is never a second model. It is None
    where the base itself is trained.
    """

    def __init__(self, model: Any, peft: Any, apart: Apart, recipe: Recipe) -> None:
        super().__init__()
        self.reader = Reader(model, apart)
        self._peft = [peft]  # in a list, so that it is no second child with the same parameters
        self.recipe = recipe

    def forward(self, pack: Pack) -> Tensor:
        """Return the loss of a pack: a number with a gradient."""
        return self.nll(pack) @ pack.weights

    def nll(self, pack: Pack) -> Tensor:
        """Return ``-log p`` of the pack's targets in nats: float32 [N]."""
        return self.reader.nll(pack.ids, pack.lengths, pack.places, pack.labels)

    @torch.no_grad()
    def states(self, pack: Pack) -> Tensor:
        """Return the hidden states from which the pack's targets are predicted: [N, hidden]."""
        return self.reader.states(pack.ids, pack.lengths, pack.places)

    @torch.no_grad()
    def kl_from(self, pack: Pack, reference: Tensor) -> Tensor:
        """Return ``KL(reference || model)`` at the pack's targets in nats: float32 [N].

        Args:
            pack: what is read.
            reference: the base's :meth:`states` of the same pack.
        """
        head = head_of(self.reader.model)
        if not (self.reader.plain and self.reader.head_is_frozen):
            raise NotImplementedError
        return linear_kl(self.states(pack), head.weight, head.bias, reference)

    def gate_closed(self) -> AbstractContextManager[Any]:
        """Return a context in which the model is the base."""
        peft = self._peft[0]
        return peft.disable_adapter() if peft is not None else nullcontext()


def on(packs: Sequence[Pack], device: torch.device) -> list[Pack]:
    """Return packs on a device."""
    return [pack.to(device) for pack in packs]
