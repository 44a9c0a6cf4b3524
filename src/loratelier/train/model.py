"""The model that is trained: the base under PEFT, its sites chosen by the recipe."""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from loratelier.base import Base
from loratelier.base.layers import layers
from loratelier.kit.errors import InputError, did_you_mean
from loratelier.train.lora_linear import LoraLinear
from loratelier.train.recipe import Recipe

# What the recipe's short names are called in the models that name them apart.
_MODULES = {
    "q": "q_proj",
    "k": "k_proj",
    "v": "v_proj",
    "o": "o_proj",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
}


def wrap(base: Base, recipe: Recipe) -> Any:
    """Return the base as a PEFT model with fresh LoRA layers (A random, B zero).

    Raises:
        InputError: a target or a layer number that the base does not have.
    """
    modules = resolve_targets(base, recipe)
    _check_layers(base, recipe)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=modules,
        layers_to_transform=list(recipe.layers) if recipe.layers is not None else None,
        lora_dropout=0.0,
        bias="none",
    )
    if base.quantization is None:
        # PEFT's own way to give a layer class of one's own: the same layer, computed faster.
        config._register_custom_module({nn.Linear: LoraLinear})
    # A is drawn at random: the seed decides it, whatever was drawn before in this process.
    torch.manual_seed(recipe.seed)
    model = get_peft_model(base.model, config)
    if recipe.checkpointing:
        base.model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )
        # transformers asks for gradients of the embeddings then, which only the other kind of
        # checkpointing needs: work would be done below the first adapted layer.
        base.model.disable_input_require_grads()
    model.train()
    return model


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW without weight decay over the trained parameters.

    Each group keeps the rate that it has at the top of the schedule as ``base_lr``.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    rate = recipe.learning_rate
    return torch.optim.AdamW(
        [{"params": trained, "lr": rate, "base_lr": rate}], lr=rate, weight_decay=0.0
    )


def resolve_targets(base: Base, recipe: Recipe) -> list[str]:
    """Return the base's own names of the targets, in the recipe's order."""
    present = linear_names(base.model)
    modules = []
    for target in recipe.targets:
        module = _MODULES.get(target, target)
        if module not in present:
            known = present | {short for short, long in _MODULES.items() if long in present}
            raise InputError(
                f"{base.name} has no linear layer '{target}' to adapt",
                did_you_mean(target, known),
            )
        modules.append(module)
    return modules


def linear_names(model: nn.Module) -> set[str]:
    """Return the last names of the linear layers inside the model's blocks."""
    linear = (name for name, layer in layers(model).items() if layer.kind == "linear")
    return {name.rsplit(".", 1)[-1] for name in linear if any(c.isdigit() for c in name)}


def _check_layers(base: Base, recipe: Recipe) -> None:
    count = base.model.config.get_text_config().num_hidden_layers
    wrong = [layer for layer in recipe.layers or () if not 0 <= layer < count]
    if wrong:
        raise InputError(f"{base.name} has no layer {wrong[0]}", f"Its layers are 0 to {count - 1}")
