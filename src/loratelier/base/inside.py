"""What a model holds between its layers, and what its own last steps would make of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from loratelier.base.layers import block_of, expert_parameters
from loratelier.kit.errors import InputError


@dataclass(frozen=True)
class Inside:
    """The hidden states of a text.

    Attributes:
        ids: int64 [rows, T], the text.
        states: L + 1 tensors [rows, T, d]: the embeddings, and what each block but the last hands
            on; the last is what the model's head reads, after the final norm.
        tail: the modules between the last block and the head (the final norm), in order.
        kind: the class of what the decoder answers.
    """

    ids: Tensor
    states: tuple[Tensor, ...]
    tail: tuple[nn.Module, ...]
    kind: type[Any]


def look_inside(model: Any, ids: Tensor) -> Inside:
    """Read token rows and return what the model holds between its layers.

    Which modules stand between the last block and the head is not guessed from names: they are
    the decoder's own parts whose outputs lead, one from the other, to its last hidden states.

    Args:
        model: a transformers causal model.
        ids: int64 [rows, T].

    Raises:
        InputError: a model that keeps something else than one stream between its layers.
    """
    decoder = model.get_decoder()
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []
    kinds: list[type[Any]] = []

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            calls.append((module, args[0], output))

    hooks = [child.register_forward_hook(note) for child in decoder.children()]
    hooks.append(decoder.register_forward_hook(lambda *call: kinds.append(type(call[-1]))))
    try:
        seen = model(input_ids=ids, use_cache=False, logits_to_keep=1, output_hidden_states=True)
    finally:
        for hook in hooks:
            hook.remove()
    states = seen.hidden_states
    if not states or any(state.shape != states[-1].shape for state in states):
        raise InputError(
            f"{type(model).__name__} keeps more than one stream between its layers",
            "Leave the lens out for this base",
        )
    return Inside(ids, tuple(states), _tail(calls, states[-1]), kinds[-1])


def _tail(calls: list[tuple[nn.Module, Tensor, Tensor]], last: Tensor) -> tuple[nn.Module, ...]:
    tail: list[nn.Module] = []
    wanted = last
    for module, given, made in reversed(calls):
        if made.numel() == wanted.numel() and torch.equal(made.reshape(wanted.shape), wanted):
            tail.insert(0, module)
            wanted = given
    return tuple(tail)


def read_out(
    model: Any, inside: Inside, states: Tensor, places: Sequence[int] | Tensor, *, normed: bool
) -> Tensor:
    """Return the logits that the model's own head makes of given states: [rows, n, V].

    The model itself is called, with its decoder answering ``states``, so that whatever it does to
    its logits (a cap, a scale, an adapter on its head) is done here too.

    Args:
        model: a transformers causal model.
        inside: what :func:`look_inside` said of the text whose states these are.
        states: [rows, T, d]; gradients flow to them.
        places: the positions at which logits are made.
        normed: the states are after the final norm already, as the last ones are.
    """
    keep = torch.as_tensor(places, device=inside.ids.device)
    tail = () if normed else inside.tail
    with _answering(model.get_decoder(), inside.kind, states, tail):
        logits: Tensor = model(input_ids=inside.ids, use_cache=False, logits_to_keep=keep).logits
    return logits


@contextmanager
def _answering(
    decoder: Any, kind: type[Any], states: Tensor, tail: Sequence[nn.Module]
) -> Iterator[None]:
    def forward(*_: Any, **__: Any) -> Any:
        made = states
        for module in tail:
            made = module(made)
        return kind(last_hidden_state=made)

    before = decoder.__dict__.get("forward")
    decoder.forward = forward
    try:
        yield
    finally:
        del decoder.__dict__["forward"]
        if before is not None:  # somebody else's, as accelerate's
            decoder.__dict__["forward"] = before


@dataclass(frozen=True)
class Routing:
    """How the routers of a mixture of experts scored a text.

    Attributes:
        layers: the numbers of the blocks that have experts, from 0.
        scores: for each of them, the scores before any softmax: [rows, T, experts].
        chosen: how many experts read a token.
    """

    layers: tuple[int, ...]
    scores: tuple[Tensor, ...]
    chosen: int


def has_experts(model: Any) -> bool:
    """Whether a model is a mixture of experts."""
    return bool(_layers_with_experts(model))


def router_scores(model: Any, ids: Tensor) -> Routing | None:
    """Read token rows and return the routers' scores; None for a model that hands none out.

    Args:
        model: a transformers causal model.
        ids: int64 [rows, T].
    """
    layers = _layers_with_experts(model)
    if not layers:
        return None
    seen = model(input_ids=ids, use_cache=False, logits_to_keep=1, output_router_logits=True)
    scores = seen.get("router_logits")
    if not scores or len(scores) != len(layers):
        return None
    shaped = tuple(each.reshape(*ids.shape, -1) for each in scores)
    return Routing(layers, shaped, int(model.config.get_text_config().num_experts_per_tok))


def _layers_with_experts(model: Any) -> tuple[int, ...]:
    blocks = [block_of(name) for name in expert_parameters(model)]
    return tuple(sorted({block for block in blocks if block is not None}))
