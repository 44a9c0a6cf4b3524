"""``plan_training``: what training a config takes, found without its weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from loratelier.base.base import Base
from loratelier.base.layers import block_of
from loratelier.base.losses import head_nll, linear_kl, linear_nll
from loratelier.base.packed import attends_as_we_do, tokens_at_once
from loratelier.base.plan.hollow import hollow, packed_in_4_bits, size_in_4_bits, wearing
from loratelier.base.plan.memory import Held, MemoryPlan, moments
from loratelier.base.plan.pace import burden_of
from loratelier.base.plan.sites import linear_sites
from loratelier.base.plan.trace import Attention, Device, Walked, walk

Method = Literal["lora", "qlora", "full"]
# Tokens of general text that the drift meters hold the base's hidden states of.
_GENERAL, _MEASURED_AT_ONCE = 5000, 1024


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    ``targets``, ``layers``: see :func:`linear_sites`. ``sites``: the layers that wear LoRA, by
    name, and its rank, where they are known; they go before ``rank``, ``targets`` and ``layers``.
    ``dtype``: of the base's weights; without it bfloat16 on a GPU and float32 on a CPU, bfloat16
    for what QLoRA does not pack, and float32 where all weights are trained, as in the training
    room. ``batch_tokens``: of a step; ``pack_tokens``: at once in memory; ``longest``: a longer
    row makes a pack of its own. ``gpus``: over how many the run is shared out.

    What a run knows of its packs: ``shape_at_once``, the ids of the largest, [rows, tokens];
    ``packs``, how many a step has; ``targets_at_once``, how many tokens of a pack are learned
    (without it all); ``measured_at_once``, tokens of the largest pack that is only read;
    ``pulls``, the base reads each pack, too, and the model is held near it; ``attention``, how
    rows are kept apart.
    """

    method: Method = "lora"
    rank: int = 8
    targets: Sequence[str] | None = None
    layers: Sequence[int] | None = None
    sites: Mapping[str, int] | None = None
    dtype: torch.dtype | None = None
    batch_tokens: int = 512
    pack_tokens: int | None = None
    longest: int | None = None
    targets_at_once: int | None = None
    shape_at_once: tuple[int, int] | None = None
    measured_at_once: int | None = None
    pulls: bool = False
    attention: Attention | None = None
    packs: int | None = None
    checkpointing: bool = False
    device: Device = "cuda"
    gpus: int = 1

    @property
    def tokens(self) -> int:
        """How many tokens are in memory at once."""
        at_once = min(self.pack_tokens or tokens_at_once(self.device), self.batch_tokens)
        return max(at_once, self.longest or 0)

    @property
    def shape(self) -> tuple[int, int]:
        """Of a pack's ids, [rows, tokens]."""
        return self.shape_at_once or (1, self.tokens)

    @property
    def accumulates(self) -> bool:
        """Whether a step has more packs than one."""
        return self.packs > 1 if self.packs else self.batch_tokens > self.tokens

    @property
    def held_in(self) -> torch.dtype:
        """The dtype of the base's weights."""
        if self.dtype is not None:
            return self.dtype
        if self.method == "qlora":
            return torch.bfloat16
        whole = self.method == "full" or self.device == "cpu"
        return torch.float32 if whole else torch.bfloat16


def plan_training(config: Any, training: Training) -> MemoryPlan:
    """Say what a training run holds in memory at its fullest, by part.

    The model is made without weights and a pack of tokens goes through it and back, so that what
    is held is counted and not estimated; what the allocator and the framework hold beside it is
    estimated from measurements.

    Args:
        config: a transformers config, or a :class:`Base`.
        training: how it is trained.

    Raises:
        InputError: transformers makes no language model of the config; a target or a layer that it
            does not have.
    """
    if isinstance(config, Base):
        config = config.model.config
    model = hollow(config, training.held_in)
    whole = training.method == "full"
    packed = packed_in_4_bits(model) if training.method == "qlora" else []
    sites = _sites(model, training)
    with wearing(model, sites, packed, training.device) as worn:
        model.requires_grad_(whole)
        step = _walked(model, worn, training, _nll(model, training))
        model.requires_grad_(False)
        measured = _measured(model, training)
        held = _held(model, worn, step, measured, packed, training)
    parameters = sum(p.numel() for p in model.parameters())
    trained = parameters if whole else sum(t.numel() for t in worn)
    return MemoryPlan(
        method=training.method,
        dtype=str(training.held_in).removeprefix("torch."),
        device=training.device,
        gpus=training.gpus,
        tokens=training.shape[0] * training.shape[1],
        targets=training.targets_at_once or training.shape[0] * training.shape[1],
        parameters=parameters,
        active=active_parameters(model),
        trained=trained,
        moments=moments(held, training.device, training.gpus),
        burden=burden_of(
            model,
            sites,
            training.shape[1],
            whole=whole,
            again=training.checkpointing,
            unpacks=bool(packed),
            # Products with packed weights are computed in float32 on every CPU.
            product=torch.float32 if packed and training.device == "cpu" else training.held_in,
        ),
        held=held,
    )


def active_parameters(model: Any) -> int:
    """Return how many parameters a token meets: of experts, those that it is sent to."""
    config = model.config.get_text_config()
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    share = getattr(config, "num_experts_per_tok", None)
    total = 0
    for parameter in model.parameters():
        routed = experts and share and parameter.dim() == 3 and parameter.shape[0] == experts
        total += parameter.numel() * share // experts if routed else parameter.numel()
    return total


def _sites(model: Any, training: Training) -> Mapping[str, int]:
    if training.method == "full":
        return {}
    if training.sites is not None:
        return training.sites
    return linear_sites(model, training.rank, training.targets, training.layers)


def _walked(
    model: Any, worn: list[Tensor], training: Training, loss: Callable[[Tensor], Tensor]
) -> Walked:
    return walk(
        model,
        worn,
        training.shape,
        loss,
        attention=training.attention or _attention(model, training),
        device=training.device,
        accumulates=training.accumulates,
        checkpointing=training.checkpointing,
    )


def _attention(model: Any, training: Training) -> Attention:
    text = model.config.get_text_config()
    if getattr(text, "attn_logit_softcapping", None) or text.model_type == "gpt_oss":
        return "eager"
    if training.shape[0] > 1 or not attends_as_we_do(model.config):
        return "padded"
    return "varlen" if training.device == "cuda" and training.held_in != torch.float32 else "rows"


def _nll(model: Any, training: Training) -> Callable[[Tensor], Tensor]:
    """Return what makes the loss of the learned places, as the training room does."""
    head = model.get_output_embeddings()

    def loss(states: Tensor) -> Tensor:
        seen, labels = _at_places(states, training.targets_at_once)
        if training.pulls and not _is_touched(head):
            apart = linear_kl(seen, head.weight, head.bias, torch.empty_like(seen))
            nll = linear_nll(seen, head.weight, head.bias, labels)
            return (nll + apart).sum()
        if not _is_plain(model.config.get_text_config()):
            return F.cross_entropy(head(seen).float(), labels, reduction="sum")
        if type(head) is torch.nn.Linear and not _is_touched(head):
            return linear_nll(seen, head.weight, head.bias, labels).sum()
        return head_nll(head, seen, labels).sum()

    return loss


def _at_places(states: Tensor, targets: int | None) -> tuple[Tensor, Tensor]:
    flat = states.flatten(0, 1)
    places = torch.zeros(targets or flat.shape[0], dtype=torch.long, device="meta")
    return flat[places], places


def _is_touched(head: Any) -> bool:
    """Whether the last layer is trained or wears an adapter."""
    return bool(head.weight.requires_grad or head._forward_hooks)


def _is_plain(text: Any) -> bool:
    """Whether logits are the last layer of the hidden states and no more, as far as configs say."""
    if getattr(text, "final_logit_softcapping", None):
        return False
    scales = (getattr(text, key, None) for key in ("logit_scale", "logits_scaling"))
    return all(scale in (None, 1, 1.0) for scale in scales)


def _measured(model: Any, training: Training) -> int:
    """Return the most that is held while texts are only read, beyond what always is."""
    head = model.get_output_embeddings()

    def loss(states: Tensor) -> Tensor:
        seen, labels = _at_places(states, None)
        nll = linear_nll(seen, head.weight, head.bias, labels)
        return nll + linear_kl(seen, head.weight, head.bias, torch.empty_like(seen))

    at_once = training.measured_at_once
    tokens = max(at_once if at_once is not None else training.tokens, _MEASURED_AT_ONCE)
    once = replace(training, shape_at_once=(1, tokens), checkpointing=False)
    width = model.config.get_text_config().hidden_size
    references = _GENERAL * int(width) * training.held_in.itemsize
    return _walked(model, [], once, loss).total + references


def _held(
    model: Any,
    worn: list[Tensor],
    step: Walked,
    measured: int,
    packed: list[str],
    training: Training,
) -> Held:
    whole = training.method == "full"
    trained = list(model.parameters()) if whole else worn
    size = sum(t.numel() * t.element_size() for t in trained)
    largest = max((t.numel() * t.element_size() for t in trained), default=0)
    in_4_bits = size_in_4_bits(model, packed)
    unpacked = sum(
        p.numel() * p.element_size()
        for name, p in model.named_parameters()
        if name.rpartition(".")[0] not in packed or not name.endswith("weight")
    )
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    root, block = _root_and_block(model)
    return Held(
        weights=unpacked + buffers + in_4_bits,
        packed=in_4_bits,
        adapter=0 if whole else size,
        gradients=size,
        optimizer=2 * size,
        kept=size,
        step=step,
        measured=measured,
        # AdamW on a GPU works on all tensors at once, on a CPU on one after the other.
        updated=size if training.device == "cuda" else 2 * largest,
        root=root,
        block=block,
        trains_weights=whole,
    )


def _root_and_block(model: Any) -> tuple[int, int]:
    """Return the bytes of the weights outside of the blocks, and of the largest block."""
    root, blocks = 0, dict[int, int]()
    for name, p in model.named_parameters():
        number = block_of(name)
        if number is None:
            root += p.numel() * p.element_size()
        else:
            blocks[number] = blocks.get(number, 0) + p.numel() * p.element_size()
    return root, max(blocks.values(), default=0)
