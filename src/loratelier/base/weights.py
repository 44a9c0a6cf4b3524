"""All of a model's weights: the modules that hold them, and weights drawn anew."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from loratelier.kit.errors import InputError


def holders(model: nn.Module) -> list[str]:
    """Return the outermost modules that hold parameters of their own; together they hold all.

    Raises:
        InputError: the model itself holds one, so that no module inside it can stand for it.
    """
    found: list[str] = []
    for name, module in model.named_modules():
        holds = next(module.parameters(recurse=False), None) is not None
        if holds and not name:
            raise InputError("The model holds weights outside of all its modules")
        if holds and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return found


def states_of(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return copies of the state of each of :func:`holders`, tied weights in each that has them.

    Args:
        model: whose modules they are.
        weights: its parameters by name, tied ones once or more often.
    """
    first = {id(p): name for name, p in model.named_parameters()}
    names = {name: first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    states = {}
    for holder in holders(model):
        own = {
            f"{holder}.{key}": value
            for key, value in model.get_submodule(holder).state_dict().items()
        }
        states[holder] = {
            key.removeprefix(f"{holder}."): (weights[names[key]] if key in names else value)
            .detach()
            .cpu()
            .clone()
            for key, value in own.items()
        }
    return states


def ties(model: Any) -> bool:
    """Return whether the output layer's weight is the input embedding's."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def drawn_anew(model: Any, seed: int) -> dict[str, Tensor]:
    """Return parameters as the model's own config initialises them, by name, on the CPU.

    The same seed gives the same weights on every machine; the generator's state is put back.
    """
    before = torch.get_rng_state()
    try:
        torch.manual_seed(seed)
        with torch.device("cpu"):
            fresh = type(model)(copy.deepcopy(model.config))
    finally:
        torch.set_rng_state(before)
    return {name: p.detach().to(model.dtype) for name, p in fresh.named_parameters()}
