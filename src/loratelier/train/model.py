"""The model that is trained: the base under PEFT, its sites and its kind chosen by the recipe."""

from typing import Any

import torch
from peft import EvaConfig, LoraConfig, get_peft_model
from torch import nn

from loratelier.base import Base
from loratelier.base.layers import modules_of
from loratelier.base.vocabulary import rows_to_train
from loratelier.kit.errors import InputError
from loratelier.train.lora_linear import LoraLinear, remembering
from loratelier.train.recipe import Recipe
from loratelier.train.recipe_variants import IN_THE_BASE
from loratelier.train.sites import sites_of

# The decomposition by random projections of the paper (arXiv:2404.02948): a full one takes hours
# for large layers, and after sixteen rounds the two hardly differ.
_PISSA = "pissa_niter_16"


def wrap(base: Base, recipe: Recipe) -> Any:
    """Return the base as a PEFT model with fresh LoRA layers.

    Raises:
        InputError: a target, layer or pattern that fits nothing in the base, or a kind of LoRA
            that its layers are not made for.
    """
    _require_own_layers(base, recipe)
    config = make_config(base, recipe)
    config._register_custom_module(layers_for(base))
    # A is drawn at random: the seed decides it, whatever was drawn before in this process.
    torch.manual_seed(recipe.seed)
    model = get_peft_model(base.model, config)
    if recipe.init in IN_THE_BASE:
        for layer in modules_of(model, LoraLinear).values():
            layer.keep_beginning(model.active_adapter)
    in_full_precision(model)
    # The file holds what A and B became; how they began does not concern who reads it.
    if recipe.init != "eva":
        config.init_lora_weights = True
    if recipe.checkpointing:
        base.model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False, "context_fn": remembering}
        )
        # transformers asks for gradients of the embeddings then, which only the other kind of
        # checkpointing needs: work would be done below the first adapted layer.
        base.model.disable_input_require_grads()
    model.train()
    return model


def _require_own_layers(base: Base, recipe: Recipe) -> None:
    """Refuse what our layer does and PEFT's does not, where PEFT's would have to be used."""
    from transformers.pytorch_utils import Conv1D

    wants = f"init: {recipe.init}" if recipe.init in IN_THE_BASE else None
    wants = "invocation" if recipe.invocation else wants
    if wants and modules_of(base.model, Conv1D):
        raise InputError(
            f"{base.name} stores its weights transposed, as GPT-2 does: {wants} is not for it",
            "Leave it out",
        )


def make_config(base: Base, recipe: Recipe) -> LoraConfig:
    """Return PEFT's config for a recipe, but for what is written when the adapter is saved."""
    sites = sites_of(base, recipe)
    begins = {"default": True, "pissa": _PISSA}
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=sites.modules,
        target_parameters=sites.parameters or None,
        layers_to_transform=sites.layers,
        rank_pattern=sites.ranks,
        alpha_pattern=sites.alphas,
        use_rslora=recipe.scaling == "rslora",
        use_dora=recipe.dora,
        init_lora_weights=begins.get(recipe.init, recipe.init),
        eva_config=EvaConfig() if recipe.init == "eva" else None,
        trainable_token_indices=rows_to_train(base, recipe.new_tokens) or None,
        lora_dropout=recipe.dropout,
        bias="none",
    )


def in_full_precision(model: nn.Module) -> None:
    """Keep what is trained in float32: steps of a small rate are lost in less."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW without weight decay over the trained parameters.

    Each group keeps the rate that it has at the top of the schedule as ``base_lr``. With
    ``lora_plus`` (arXiv:2402.12354) the B of linear layers has a group of its own, and DoRA's
    magnitudes with it, as in PEFT; embeddings and token rows keep the plain rate.
    """
    plain: list[nn.Parameter] = []
    faster: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            fast = recipe.lora_plus is not None and _is_b(name)
            (faster if fast else plain).append(parameter)
    rate = recipe.learning_rate
    groups = [(plain, rate), (faster, rate * (recipe.lora_plus or 1.0))]
    return torch.optim.AdamW(
        [{"params": params, "lr": top, "base_lr": top} for params, top in groups if params],
        lr=rate,
        weight_decay=0.0,
    )


def _is_b(name: str) -> bool:
    return ".lora_B." in name or ".lora_magnitude_vector." in name


def layers_for(base: Base) -> dict[type[nn.Module], type[nn.Module]]:
    """Return our layer for each class of the base's: PEFT's way to give one of one's own."""
    if base.quantization is None:
        return {nn.Linear: LoraLinear}
    import bitsandbytes

    from loratelier.train.lora_4bit import LoraLinear4bit

    # 4-bit layers are linear layers to Python as well, so they are asked for first.
    return {bitsandbytes.nn.Linear4bit: LoraLinear4bit, nn.Linear: LoraLinear}
