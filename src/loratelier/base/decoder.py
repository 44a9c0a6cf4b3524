"""A model in its two steps: the decoder that makes hidden states, and the head that reads them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loratelier.base.losses import (
    head_nll,
    linear_kl,
    linear_nll,
    linear_soft_nll,
    rows_at_once,
)
from loratelier.base.narrow import NarrowLinear
from loratelier.base.packed import Apart, borders, positions_of


def hidden_states(model: Any, ids: Tensor) -> Tensor:
    """Return the last hidden states of token rows: [rows, tokens, hidden]; no cache is kept."""
    states: Tensor = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    return states


@contextmanager
def around_reading(
    model: Any, surrounding: Callable[[Tensor, dict[str, Any]], AbstractContextManager[None]]
) -> Iterator[None]:
    """Open a context around whatever the decoder of a model reads, whoever calls it.

    Args:
        model: a transformers causal model.
        surrounding: makes the context from the token ids [rows, tokens] and the other arguments.
    """
    opened: list[AbstractContextManager[None]] = []

    def before(_module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        context = surrounding(args[0] if args else given["input_ids"], given)
        context.__enter__()
        opened.append(context)

    def after(*_: Any) -> None:
        opened.pop().__exit__(None, None, None)

    decoder = model.get_decoder()
    hooks = [
        decoder.register_forward_pre_hook(before, with_kwargs=True),
        decoder.register_forward_hook(after, always_call=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def head_of(model: Any) -> Any:
    """Return the layer that turns hidden states into logits; None where a model has none."""
    return model.get_output_embeddings()


def row_inputs(ids: Tensor, lengths: Sequence[int], apart: Apart) -> dict[str, Any]:
    """Return the keywords with which a model reads rows that must not see each other.

    Args:
        ids: int64 [1, T], rows end to end; for ``"padding"`` [rows, longest], padded at the end.
        lengths: tokens of each row.
        apart: what :func:`loratelier.base.packed.rows_apart` said of the model.
    """
    if apart == "padding":
        steps = torch.arange(ids.shape[1], device=ids.device)
        mask = steps[None] < torch.tensor(lengths, device=ids.device)[:, None]
        return {"input_ids": ids, "attention_mask": mask.long(), "use_cache": False}
    given = {
        "input_ids": ids,
        "position_ids": positions_of(lengths).to(ids.device),
        # With a cache transformers lets packed rows see each other.
        "use_cache": False,
    }
    return given if apart == "mask" else given | borders(lengths, ids.device)


@dataclass(frozen=True)
class BaseHead:
    """A last layer as the base has it: ``weight`` [V, d], ``bias`` [V] or None."""

    weight: Tensor
    bias: Tensor | None


class Reader(nn.Module):
    """A causal model as training reads it: hidden states, and losses at chosen places.

    Where the model's logits are its last layer of the hidden states and no more, which is tried
    once, losses are made in chunks without keeping logits; a model that scales or caps its logits
    is asked for the logits of the chosen places.
    """

    def __init__(self, model: Any, apart: Apart) -> None:
        super().__init__()
        self.model = model
        self.apart = apart
        self.plain = _reads_plainly(model, apart)

    def states(self, ids: Tensor, lengths: Sequence[int], places: Tensor) -> Tensor:
        """Return the hidden states at ``places`` of the flattened ids: [N, hidden]."""
        decoder = self.model.get_decoder()
        made = decoder(**row_inputs(ids, lengths, self.apart)).last_hidden_state
        return made.flatten(0, 1)[places]  # type: ignore[no-any-return]

    def nll(self, ids: Tensor, lengths: Sequence[int], places: Tensor, labels: Tensor) -> Tensor:
        """Return ``-log p(label)`` at ``places`` in nats: float32 [N]."""
        return self.nll_of(self.seen(ids, lengths, places), labels)

    def seen(self, ids: Tensor, lengths: Sequence[int], places: Tensor) -> Tensor:
        """Return what several losses at ``places`` are made of, so that the model runs once.

        Hidden states [N, hidden]; or logits [N, V] of a model that makes more of its logits than
        its last layer of the hidden states.
        """
        if self.plain:
            return self.states(ids, lengths, places)
        return self.logits(ids, lengths, places)

    def nll_of(self, seen: Tensor, labels: Tensor) -> Tensor:
        """Return ``-log p(label)`` in nats, float32 [N], from what :meth:`seen` returned."""
        if not self.plain:
            return F.cross_entropy(seen, labels, reduction="none")
        head = head_of(self.model)
        if self.head_is_frozen:
            return linear_nll(seen, head.weight, head.bias, labels)
        return head_nll(head, seen, labels)

    def kl_of(self, seen: Tensor, reference: Tensor, head: BaseHead | None = None) -> Tensor:
        """Return ``KL(reference || model)`` of the next token in nats: float32 [N].

        Args:
            seen: from :meth:`seen`; gradients flow to it.
            reference: what the base has :meth:`seen` at the same places.
            head: the base's last layer, where the model's own is trained or adapted.
        """
        own = head_of(self.model)
        if not self.plain:
            return _dense_kl(seen, reference)
        if head is not None:
            wanted = F.linear(reference, head.weight.to(reference.dtype), head.bias).float()
            return _dense_kl(own(seen).float(), wanted)
        return linear_kl(seen, own.weight, own.bias, reference)

    def base_head(self) -> BaseHead | None:
        """Return a copy of the last layer as it is now, if training will change it; else None."""
        if not self.plain or self.head_is_frozen:
            return None
        head = head_of(self.model)
        # PEFT's wrappers keep the head inside, and some of them say nothing of a bias.
        own = {name.removeprefix("base_layer."): p for name, p in head.named_parameters()}
        bias = own.get("bias")
        return BaseHead(
            head.weight.detach().clone(), None if bias is None else bias.detach().clone()
        )

    def soft_nll_of(
        self, seen: Tensor, wanted: Tensor, shares: Tensor, temperature: float = 1.0
    ) -> Tensor:
        """Return the cross-entropy towards given distributions in nats: float32 [N].

        Args:
            seen: what :meth:`seen` returned; gradients flow to it.
            wanted: int64 [N, k], the tokens that have a share.
            shares: float32 [N, k].
            temperature: divides the logits.
        """
        head = head_of(self.model)
        if self.plain and self.head_is_frozen:
            # Dividing what goes into a linear layer divides what comes out of it.
            bias = None if head.bias is None else head.bias / temperature
            return linear_soft_nll(seen / temperature, head.weight, bias, wanted, shares)
        logits = head(seen).float() if self.plain else seen
        likely = (logits / temperature).log_softmax(-1)
        return -(shares * likely.gather(1, wanted)).sum(1)

    def likeliest(self, seen: Tensor, count: int, vocabulary: int) -> tuple[Tensor, Tensor]:
        """Return the ``count`` likeliest next tokens: int64 and float32 [N, count] each.

        Args:
            seen: what :meth:`seen` returned.
            count: how many.
            vocabulary: tokens from this number on do not count; the shares of the others are
                among themselves.
        """
        found = []
        for part in seen.split(rows_at_once(vocabulary, seen.device)):
            logits = head_of(self.model)(part).float() if self.plain else part
            found.append(logits[:, :vocabulary].softmax(-1).topk(min(count, vocabulary)))
        return torch.cat([each.indices for each in found]), torch.cat([e.values for e in found])

    def logits(self, ids: Tensor, lengths: Sequence[int], places: Tensor) -> Tensor:
        """Return the logits at ``places``: float32 [N, V]."""
        if self.plain:
            return head_of(self.model)(self.states(ids, lengths, places)).float()  # type: ignore[no-any-return]
        given = row_inputs(ids, lengths, self.apart)
        if self.apart == "padding":
            return self.model(**given).logits.flatten(0, 1)[places].float()  # type: ignore[no-any-return]
        return self.model(**given, logits_to_keep=places).logits[0].float()  # type: ignore[no-any-return]

    @property
    def head_is_frozen(self) -> bool:
        """Whether the last layer is a plain one that nothing trains or adapts."""
        head = head_of(self.model)
        return type(head) in (nn.Linear, NarrowLinear) and not head.weight.requires_grad


def _dense_kl(logits: Tensor, reference: Tensor) -> Tensor:
    wanted = reference.log_softmax(-1)
    return (wanted.exp() * (wanted - logits.log_softmax(-1))).sum(-1)


@torch.no_grad()
def _reads_plainly(model: Any, apart: Apart) -> bool:
    head = head_of(model)
    if head is None:
        return False
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(8) * 7919 % vocabulary)[None].to(next(model.parameters()).device)
    given = row_inputs(ids, (8,), apart)
    was_training = model.training
    model.eval()
    whole = model(**given).logits
    made = head(model.get_decoder()(**given).last_hidden_state)
    model.train(was_training)
    # A cap or a scale moves logits by far more than rounding does.
    return torch.allclose(made.float(), whole.float(), atol=1e-2, rtol=1e-2)
