"""What is differentiated: the loss of one pack, whatever the objective."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from peft.helpers import rescale_adapter_scale
from torch import Tensor, nn

from loratelier.base.decoder import Reader
from loratelier.base.lowrank import update_norm
from loratelier.base.packed import Apart
from loratelier.train.packing import Pack
from loratelier.train.recipe import Recipe
from loratelier.train.terms import guarded_losses

P = ParamSpec("P")
T = TypeVar("T")


class Learner(nn.Module):
    """A model with its objective.

    ``model`` is the transformers model with the adapter's layers in it; ``peft`` is PEFT's model
    around it, whose adapter can be switched off: the base is never a second model. It is None
    where the base itself is trained.

    Whoever wants something of the weights calls the module with one of its methods,
    ``learner(Learner.nll, pack)``: a model that is shared out over processes is whole only while
    it is called.
    """

    def __init__(self, model: Any, peft: Any, apart: Apart, recipe: Recipe) -> None:
        super().__init__()
        self.reader = Reader(model, apart)
        self._peft = [peft]  # in a list, so that it is no second child with the same parameters
        self.recipe = recipe
        # A copy is needed only of a last layer that training changes under our hands.
        self._base_head = self.reader.base_head()
        # Which layers a model is shared out by, as FSDP asks for it.
        self._no_split_modules = model._no_split_modules

    def forward(
        self, what: Callable[Concatenate["Learner", P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what one of the methods says."""
        return what(self, *args, **kwargs)

    def loss(self, pack: Pack) -> Tensor:
        """Return the loss of a pack, weighted and summed: a number with a gradient."""
        guards = self.recipe.guards
        loss = guarded_losses(self, pack, guards) @ pack.weights
        if guards.norm is not None and not pack.replayed:
            # The weights of a step's rows sum to 1 over its packs: it has the penalty once.
            loss = loss + guards.norm * update_norm(self.reader.model) * pack.weights.sum()
        return loss

    def nll(self, pack: Pack) -> Tensor:
        """Return ``-log p`` of the pack's targets in nats: float32 [N]."""
        return self.reader.nll_of(self.seen(pack), pack.labels)

    def seen(self, pack: Pack) -> Tensor:
        """Return what the losses of the pack's targets are made of; see :meth:`Reader.seen`."""
        return self.reader.seen(pack.ids, pack.lengths, pack.places)

    def base_nll(self, pack: Pack) -> Tensor:
        """Return what :meth:`nll` is with the gate closed."""
        with self.gate_closed():
            return self.nll(pack)

    @torch.no_grad()
    def reference(self, pack: Pack) -> Tensor:
        """Return what the base has :meth:`seen` at the pack's targets: for :meth:`kl_of`."""
        with self.gate_closed():
            return self.seen(pack)

    def kl_of(self, seen: Tensor, reference: Tensor) -> Tensor:
        """Return ``KL(base || model)`` of the next token in nats: float32 [N]."""
        return self.reader.kl_of(seen, reference, self._base_head)

    def nll_and_kl(self, pack: Pack, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``-log p`` and ``KL(base || model)`` at the pack's targets: float32 [N] each."""
        seen = self.seen(pack)
        return self.reader.nll_of(seen, pack.labels), self.kl_of(seen, reference)

    def gate_closed(self) -> AbstractContextManager[Any]:
        """Return a context in which the model is the base."""
        peft = self._peft[0]
        return peft.disable_adapter() if peft is not None else nullcontext()

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """Return a context in which the adapter's update is multiplied by ``strength``."""
        if strength == 1:
            return nullcontext()
        rescaled: AbstractContextManager[None] = rescale_adapter_scale(self._peft[0], strength)
        return rescaled


def on(packs: Sequence[Pack], device: torch.device) -> list[Pack]:
    """Return packs on a device."""
    return [pack.to(device) for pack in packs]
