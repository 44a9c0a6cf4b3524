"""How A and B begin beside PEFT's default, and what that means for the file."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.eva import initialize_lora_eva_weights
from torch import Tensor

from loratelier.adapter.config import settings_for
from loratelier.adapter.extras import Pair
from loratelier.base.layers import modules_of
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark
from loratelier.train.learner import Learner
from loratelier.train.lora_linear import LoraLinear, beginning_of
from loratelier.train.model import in_full_precision
from loratelier.train.packing import Pack


def begin_with_data(peft: Any, learner: Learner, packs: Sequence[Pack]) -> None:
    """Begin as EVA does (arXiv:2410.07170): A in the directions in which the layers' inputs vary.

    The packs are those of the first epoch, read in their order by the base. Ranks move between
    layers to where they explain the most; a layer may be left with none. The same packs give the
    same beginning.

    Raises:
        InputError: the packs hold too few tokens for the rank, or a layer is too small for it.
    """
    config = peft.peft_config["default"]
    wanted = round(config.r * config.eva_config.rho)
    large = [pack for pack in packs if pack.tokens >= wanted]
    if not large:
        raise InputError(
            f"init: eva needs packs of at least {wanted} tokens for rank {config.r}",
            "Raise batch_tokens, or lower the rank",
        )
    narrow = min(layer.in_features for layer in modules_of(peft, LoraLayer).values())
    if wanted > narrow:
        raise InputError(
            f"init: eva looks at {wanted} directions for rank {config.r}, and a layer has {narrow}",
            "Lower the rank",
        )
    remark(f"EVA: reading up to {sum(pack.tokens for pack in large):,} tokens for a beginning")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hooks on layers that are there for their inputs alone
        initialize_lora_eva_weights(
            peft,
            dataloader=large,
            forward_fn=lambda _, pack: learner.seen(pack),
            prepare_model_inputs_fn=lambda pack, _: pack,
            prepare_layer_inputs_fn=_inputs,
            gather_distributed_inputs=False,  # every process reads the same packs
            show_progress_bar=False,
        )
    in_full_precision(peft)
    config.init_lora_weights = True  # the file holds what A became
    peft.train()


def _inputs(given: Any, pack: Pack, _name: str) -> Tensor:
    """Return a layer's inputs without those of padding: float32 [tokens, d_in]."""
    inputs: Tensor = given[0] if isinstance(given, tuple | list) else given
    if pack.ids.shape[0] > 1:
        steps = torch.arange(inputs.shape[1], device=inputs.device)
        inputs = inputs[steps[None] < torch.tensor(pack.lengths, device=inputs.device)[:, None]]
    return inputs.reshape(-1, inputs.shape[-1]).float()


def without_beginnings(
    peft: Any, pairs: dict[str, Pair], base: str | None
) -> tuple[dict[str, Pair], dict[str, Any]]:
    """Return the pairs of an adapter that began in the base's weights, as plain LoRA of rank 2r.

    ``B A - B0 A0`` is ``[B, -B0] [A; A0]``: whoever reads the file needs the base as it is and
    nothing else.

    Args:
        peft: PEFT's model, whose layers know how they began.
        pairs: site -> (A [r, d_in], B [d_out, r]) as they are now.
        base: what the config names as the base.

    Returns:
        The new pairs, and what of PEFT's config has to say so.
    """
    doubled, ranks, alphas = dict(pairs), {}, {}
    for name, layer in modules_of(peft.get_base_model(), LoraLinear).items():
        down, up = pairs[name]
        beginning = beginning_of(layer)
        if beginning is not None:
            first_down, first_up = (half.to("cpu", down.dtype) for half in beginning)
            doubled[name] = torch.cat([down, first_down]), torch.cat([up, -first_up], dim=1)
        ranks[name] = doubled[name][0].shape[0]
        alphas[name] = layer.scaling["default"] * ranks[name]
    raw = settings_for(ranks, alphas, base).raw
    keys = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules")
    return doubled, {key: raw[key] for key in keys} | {"layers_to_transform": None}
