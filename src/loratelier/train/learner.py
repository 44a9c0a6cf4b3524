"""What is differentiated: the loss of one pack, whatever the objective."""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from loratelier.base.decoder import Reader, head_of
from loratelier.base.losses import linear_kl
from loratelier.base.packed import Apart
from loratelier.train.packing import Pack
from loratelier.train.recipe import Recipe

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
        # Where the base itself is trained its last layer is kept as it was: what the base expected
        # can then be told from the hidden states that it had.
        kept = copy.deepcopy(head_of(model)) if peft is None else None
        self._base_head = [kept]
        self.recipe = recipe
        # Which layers a model is shared out by, as FSDP asks for it.
        self._no_split_modules = model._no_split_modules

    def forward(
        self, what: Callable[Concatenate["Learner", P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what one of the methods says."""
        return what(self, *args, **kwargs)

    def loss(self, pack: Pack) -> Tensor:
        """Return the loss of a pack, weighted and summed: a number with a gradient."""
        return self.nll(pack) @ pack.weights

    def nll(self, pack: Pack) -> Tensor:
        """Return ``-log p`` of the pack's targets in nats: float32 [N]."""
        return self.reader.nll(pack.ids, pack.lengths, pack.places, pack.labels)

    def base_nll(self, pack: Pack) -> Tensor:
        """Return what :meth:`nll` is with the gate closed."""
        with self.gate_closed():
            return self.nll(pack)

    def states(self, pack: Pack) -> Tensor:
        """Return the hidden states from which the pack's targets are predicted: [N, hidden]."""
        return self.reader.states(pack.ids, pack.lengths, pack.places)

    def base_states(self, pack: Pack) -> Tensor:
        """Return what :meth:`states` are with the gate closed."""
        with self.gate_closed():
            return self.states(pack)

    def nll_and_kl(self, pack: Pack, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``-log p`` and ``KL(base || model)`` at the pack's targets: float32 [N] each.

        Args:
            pack: what is read.
            reference: the base's states of the same pack.
        """
        head = head_of(self.reader.model)
        states = self.states(pack)
        nll = self.reader.nll_of(states, pack.labels)
        if self.reader.head_is_frozen:
            return nll, linear_kl(states, head.weight, head.bias, reference)
        with self.gate_closed():
            wanted = (self._base_head[0] or head)(reference).float().log_softmax(-1)
        ours = head(states).float().log_softmax(-1)
        return nll, (wanted.exp() * (wanted - ours)).sum(-1)

    def gate_closed(self) -> AbstractContextManager[Any]:
        """Return a context in which the model is the base."""
        peft = self._peft[0]
        return peft.disable_adapter() if peft is not None else nullcontext()


def on(packs: Sequence[Pack], device: torch.device) -> list[Pack]:
    """Return packs on a device."""
    return [pack.to(device) for pack in packs]
