"""What a step of training keeps in memory, found by walking the model without its weights.

The model is made on torch's ``meta`` device, where tensors have shapes and no contents, and a pack
of tokens goes through it there and back again. Every tensor that torch allocates on the way is
counted from its birth to its death. So what autograd saves, what is shared, and what is only
passing through is counted as it is, for every architecture that transformers has, and no formula
has to be kept for any of them.
"""

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from loratelier.base.losses import PLANNED
from loratelier.base.quiet import quiet, reason
from loratelier.kit.errors import InputError

_ATTENTION = "loratelier_plan"
Attention = Literal["rows", "varlen", "padded", "eager"]
Device = Literal["cpu", "cuda"]
# glibc gives tensors of this size memory of their own, which goes back to the system with them.
_OWN_MEMORY = 32 * 2**20


@dataclass(frozen=True)
class Walked:
    """Bytes beyond the weights at the fullest moment of a pack's way there and back.

    ``activations``: what was there when the decoder had ended, and still is. ``gradients``: of the
    trained weights. ``passing``: all else, the loss and its logits among it. ``kept``: what was
    there when the decoder had ended, whether or not it is at the fullest moment.

    Of the tensors that a CPU's allocator keeps in its heap: ``heaped``, those at the fullest moment
    together, and ``churned``, all that were ever made together.
    """

    activations: int
    gradients: int
    passing: int
    kept: int
    heaped: int
    churned: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.activations + self.gradients + self.passing


def walk(
    model: Any,
    worn: Sequence[Tensor],
    shape: tuple[int, int],
    loss: Callable[[Tensor], Tensor],
    *,
    attention: Attention = "rows",
    device: Device = "cpu",
    accumulates: bool = True,
    checkpointing: bool = False,
) -> Walked:
    """Take one pack through a hollow model and back, and say what was held on the way.

    Args:
        model: on the meta device; it is left as it came.
        worn: trained tensors that are no parameters of it.
        shape: of the pack's ids, [rows, tokens].
        loss: makes a number of the last hidden states, [rows, tokens, hidden].
        attention: how rows are kept apart: ``"rows"`` one after the other, as on a CPU;
            ``"varlen"`` in a GPU's kernel for rows of any lengths, which wants its inputs in
            another order; ``"padded"`` by a mask, which wants as many keys as queries; ``"eager"``
            by a mask where all scores are made, as models do that cap or bias them.
        device: what it is planned for.
        accumulates: other packs of the step went before, so that gradients are there already.
        checkpointing: blocks keep their input alone, and are computed a second time.

    Raises:
        InputError: the model reads the contents of its tensors, which are not there.
    """
    trained = [p for p in (*model.parameters(), *worn) if p.requires_grad]
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter) if accumulates else None
    try:
        with quiet(), warnings.catch_warnings(), _attending(model, attention), _planned(device):
            warnings.simplefilter("ignore", FutureWarning)
            model.train()
            if checkpointing and trained:
                model.gradient_checkpointing_enable({"use_reentrant": False})
            try:
                return _walk(model, worn, trained, shape, loss, accumulates)
            finally:
                if checkpointing and trained:
                    model.gradient_checkpointing_disable()
    except (RuntimeError, NotImplementedError, TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"{type(model).__name__} cannot be walked without weights ({reason(error)})"
        ) from error
    finally:
        for parameter in trained:
            parameter.grad = None


def _walk(
    model: Any,
    worn: Sequence[Tensor],
    trained: Sequence[Tensor],
    shape: tuple[int, int],
    loss: Callable[[Tensor], Tensor],
    accumulates: bool,
) -> Walked:
    ids = torch.zeros(shape, dtype=torch.long, device="meta")
    before = [p.grad for p in trained if p.grad is not None]
    live = _Live([ids, *model.parameters(), *model.buffers(), *worn, *before])
    with live, torch.set_grad_enabled(bool(trained)):
        states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        kept = live.alive()
        made = loss(states)
        del states
        if made.requires_grad:
            made.backward()
    own = {live.number(p.grad) for p in trained if p.grad is not None} - {0}
    fullest = live.fullest()
    gradients = sum(size for key, size in fullest.items() if key in own)
    activations = sum(size for key, size in fullest.items() if key in kept and key not in own)
    there = sum(g.untyped_storage().nbytes() for g in before)
    return Walked(
        activations=activations,
        gradients=gradients + there,
        passing=sum(fullest.values()) - gradients - activations,
        kept=sum(kept.values()),
        heaped=sum(size for size in fullest.values() if size < _OWN_MEMORY),
        churned=live.churned(),
    )


class _Live(TorchDispatchMode):
    """The tensors that are alive, by a number of their memory, and those at the fullest moment.

    Tensors in ``known`` were there before and are not counted.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        # torch gives an address again when its tensor has died: births are numbered.
        self._numbers: dict[int, int] = {_address(tensor): 0 for tensor in known}
        self._sizes: dict[int, int] = {0: 0}
        self._events: list[int] = []  # births as their numbers, deaths as those less than zero
        self._now, self._most, self._when = 0, 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        if func is torch.ops.aten._grouped_mm.default:
            out = _grouped_product(*args, **given)
        else:
            out = func(*args, **given)
        tree_map_only(Tensor, self._born, out)
        return out

    def alive(self) -> dict[int, int]:
        """Return the sizes of the tensors that are there now."""
        return self._after(len(self._events))

    def fullest(self) -> dict[int, int]:
        """Return the sizes of those that were there when there was most."""
        return self._after(self._when)

    def churned(self) -> int:
        """Return the bytes of all tensors that were ever in the allocator's heap."""
        return sum(size for size in self._sizes.values() if size < _OWN_MEMORY)

    def _after(self, events: int) -> dict[int, int]:
        there: dict[int, int] = {}
        for number in self._events[:events]:
            if number > 0:
                there[number] = self._sizes[number]
            else:
                del there[-number]
        return there

    def number(self, tensor: Tensor) -> int:
        """Return the number of a tensor's memory; 0 of one that was there before."""
        return self._numbers.get(_address(tensor), 0)

    def _born(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._numbers:
            return
        number = len(self._sizes)
        self._numbers[storage._cdata] = number
        self._sizes[number] = storage.nbytes()
        self._events.append(number)
        self._now += storage.nbytes()
        if self._now > self._most:
            self._most, self._when = self._now, len(self._events)
        weakref.finalize(storage, self._died, storage._cdata)

    def _died(self, address: int) -> None:
        number = self._numbers.pop(address)
        self._events.append(-number)
        self._now -= self._sizes[number]


def _address(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


def _grouped_product(left: Tensor, right: Tensor, offs: Tensor, *_: Any, **__: Any) -> Tensor:
    """The shapes of torch's product by groups, whose own are for bfloat16 alone.

    [S, k] x [groups, k, n] -> [S, n] on the way there; [m, S] x [S, n] -> [groups, m, n] for the
    gradient of the weights.
    """
    if right.dim() == 2:
        return left.new_empty(offs.shape[0], left.shape[0], right.shape[1])
    return left.new_empty(left.shape[0], right.shape[-1])


class _Attention(torch.autograd.Function):
    """What an attention that keeps no scores keeps: its inputs, its output, a number a query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


# Which attention is meant: transformers calls ours, and passes nothing of ours on.
_attention: list[Attention] = []


@contextmanager
def _attending(model: Any, attention: Attention) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(_ATTENTION)
    _attention.append(attention)
    try:
        yield
    finally:
        _attention.pop()
        model.set_attn_implementation(before)


@contextmanager
def _planned(device: Device) -> Iterator[None]:
    token = PLANNED.set(device)
    try:
        yield
    finally:
        PLANNED.reset(token)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    if _attention[-1] == "rows":
        # The rows' outputs are laid side by side again.
        return torch.cat([_mixed(query, key, value)], dim=2).transpose(1, 2), None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    if _attention[-1] == "eager":
        scores = (query @ key.transpose(2, 3)).float().softmax(-1).to(query.dtype)
        return (scores @ value).transpose(1, 2).contiguous(), None
    if _attention[-1] == "padded":
        return _mixed(query, key, value).transpose(1, 2).contiguous(), None
    parts = (part.transpose(1, 2).contiguous() for part in (query, key, value))
    return _mixed(*parts), None


def _mixed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[..., head size of the values]: some models have values of another size than keys."""
    out: Tensor = _Attention.apply(query, key, value)
    return out if value.shape[-1] == query.shape[-1] else out[..., : value.shape[-1]]


def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(_ATTENTION, _attend)


_register()
