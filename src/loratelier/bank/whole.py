"""Whole modules that an adapter brings along (``modules_to_save``), behind the same gates.

The output is ``f(x) + sum_k g_k (f_k(x) - f(x))``: at a gate of 1 the adapter's module, at 0 the
base's. For a linear layer, an embedding or a norm, whose output is linear in the weights, this is
the mixture of the weights; for a larger module it is the mixture of the outputs.
"""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from loratelier.bank.gates import Gates
from loratelier.bank.lowrank import align, current
from loratelier.bank.window import Watch
from loratelier.kit.errors import InputError


def twin(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Return a module like the base's with an adapter's weights, in the base's dtype and place."""
    made = copy.deepcopy(module)
    made.load_state_dict(dict(state))
    made.requires_grad_(False)
    for part in made.modules():  # the base's hooks, ours among them, stay with the base
        part._forward_hooks.clear()
        part._forward_pre_hooks.clear()
    return made


class Whole:
    """A forward hook that mixes a module's output with those of the adapters' modules."""

    def __init__(
        self, site: str, twins: Mapping[str, nn.Module], gates: Gates, watch: Watch
    ) -> None:
        self._site = site
        self._twins = twins
        self._gates = gates
        self._watch = watch

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Tensor:
        """Return the module's output, mixed."""
        if not isinstance(output, Tensor):
            raise InputError(
                f"{self._site} gives {type(output).__name__} and no tensor, which cannot be mixed",
                "Save its linear layers in modules_to_save instead",
            )
        x = next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        window = current(self._watch, self._gates, x, self._site)
        table = self._gates.at(self._site, window).to(output.device)
        mixed = output.float()
        for name, made in self._twins.items():
            gate = table[..., self._gates.names.index(name)][..., None]
            if not self._gates.differentiable and not bool(gate.any()):
                continue
            if gate.numel() > 1:
                gate = align(gate, output, window, indices=False)
            mixed = mixed + gate * (made(*args, **kwargs).float() - output.float())
        return mixed.to(output.dtype)
