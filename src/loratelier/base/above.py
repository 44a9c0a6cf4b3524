"""The part of a model above a layer: what goes into a site, and what comes of another output.

What a change of one layer does to the logits is found without the layers below it: these are run
once, what they handed on is kept, and every later pass begins there.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from loratelier.base.layers import block_of, dense, layers
from loratelier.kit.errors import InputError

Places = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Passed:
    """What one pass over some texts left behind.

    Attributes:
        ids: int64 [rows, T]; shorter rows are filled at their end, where nothing sees it.
        inputs: for each watched site what went into it: [rows, T, d_in].
        logits: at the places that were asked for: float32 [places, V].
    """

    ids: Tensor
    inputs: Mapping[str, Tensor]
    logits: Tensor
    _handed: Mapping[int, Any]


def writers(model: Any) -> dict[int, str]:
    """Return, by number of the block, its last linear layer: in a dense model what its MLP adds.

    Raises:
        InputError: the model has no blocks with linear layers.
    """
    found = {
        block: name
        for name, layer in layers(model).items()
        if layer.kind == "linear" and (block := block_of(name)) is not None
    }
    if not found:
        raise InputError(f"{type(model).__name__} has no blocks of linear layers", "Take another")
    return dict(sorted(found.items()))


@torch.no_grad()
def read_through(model: Any, ids: Tensor, sites: Sequence[str], places: Places) -> Passed:
    """Read texts once and keep what is needed to go on from any of some sites.

    Args:
        model: a transformers causal model, with whatever adapter is active on it.
        ids: int64 [rows, T].
        sites: names of linear layers, each in a block.
        places: (row, column) of the tokens after which logits are made.
    """
    inputs: dict[str, Tensor] = {}
    handed: dict[int, Any] = {}

    def seen(site: str) -> Any:
        return lambda _module, args: inputs.__setitem__(site, args[0].detach())

    def left(block: int) -> Any:
        return lambda _module, _args, output: handed.__setitem__(block, output)

    with ExitStack() as hooks:
        for site in sites:
            hooks.enter_context(
                _hook(model.get_submodule(site).register_forward_pre_hook(seen(site)))
            )
        blocks = _blocks(model, sites[0])
        for number in {_number(site) - 1 for site in sites} - {-1}:
            hooks.enter_context(_hook(blocks[number].register_forward_hook(left(number))))
        hooks.enter_context(_picking(model, places))
        logits = model(input_ids=ids, use_cache=False).logits[0].float()
    return Passed(ids, inputs, logits, handed)


def go_on(model: Any, passed: Passed, site: str, added: Tensor, places: Places) -> Tensor:
    """Return the logits when something is added to what a site puts out: float32 [places, V].

    Only the site's block and those above it are run. Gradients flow to ``added``.

    Args:
        model: as for :func:`read_through`, in the same look.
        passed: what that returned.
        site: one of the sites that it watched.
        added: [rows, T, d_out].
        places: (row, column) of the tokens after which logits are made.
    """
    number = _number(site)
    blocks = _blocks(model, site)
    module = model.get_submodule(site)
    with ExitStack() as changes:
        for below in blocks[:number]:
            changes.enter_context(_standing_in(below, passed._handed[number - 1]))
        changes.enter_context(
            _hook(module.register_forward_hook(lambda _m, _a, made: made + added.to(made.dtype)))
        )
        changes.enter_context(_picking(model, places))
        logits: Tensor = model(input_ids=passed.ids, use_cache=False).logits[0].float()
    return logits


def _number(site: str) -> int:
    number = block_of(site)
    if number is None:
        raise InputError(f"{site} is in no block of the model")
    return number


def _blocks(model: Any, site: str) -> list[nn.Module]:
    """Return the row of blocks that a site is in, in the model's order."""
    path = site.split(".")
    at = next(place for place, part in enumerate(path) if part.isdigit())
    return list(model.get_submodule(".".join(path[:at])))


@contextmanager
def _hook(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _picking(model: Any, places: Places) -> Iterator[None]:
    """Hand the head the states of some places alone: over a large vocabulary it costs the most."""
    rows = torch.tensor([row for row, _ in places], device=model.device)
    columns = torch.tensor([column for _, column in places], device=model.device)

    def pick(_module: nn.Module, _args: Any, output: Any) -> Any:
        return type(output)(last_hidden_state=output.last_hidden_state[rows, columns][None])

    with _hook(model.get_decoder().register_forward_hook(pick)):
        yield


@contextmanager
def _standing_in(block: Any, output: Any) -> Iterator[None]:
    before = block.__dict__.get("forward")
    block.forward = lambda *_, **__: output
    try:
        yield
    finally:
        del block.__dict__["forward"]
        if before is not None:  # somebody else's, as accelerate's
            block.__dict__["forward"] = before


def size_of(model: Any, site: str) -> tuple[int, float]:
    """Return a linear layer's d_out, and the Frobenius norm of its weight."""
    weight = dense(model.get_submodule(site))
    return int(weight.shape[0]), float(torch.linalg.norm(weight))
