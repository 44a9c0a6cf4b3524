"""The low-rank updates in a model under training, as one number."""

from typing import Any

import torch
from torch import Tensor, nn


def update_norm(model: nn.Module) -> Tensor:
    """Return the sum over all sites of ``||s B A||_F^2``, with a gradient: a float32 number.

    ``||B A||_F^2 = sum((B^T B) * (A A^T))``: two matrices of r x r, never the dense product. What
    an adapter changes beside its pairs (magnitudes, biases, tokens) is not in it.

    Args:
        model: with PEFT's layers in it.

    Raises:
        NotImplementedError: a pair for the experts of a parameter, which is many in one.
    """
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    total: Tensor | None = None
    for module in model.modules():
        if not isinstance(module, LoraLayer):
            continue
        if isinstance(module, ParamWrapper):
            raise NotImplementedError("a norm of experts' updates")
        for name in module.active_adapters:
            for down, up in _pairs(module, name):
                part = _squared(down, up) * module.scaling[name] ** 2
                total = part if total is None else total + part
    return total if total is not None else torch.zeros(())


def _pairs(module: Any, name: str) -> list[tuple[Tensor, Tensor]]:
    found: list[tuple[Tensor, Tensor]] = []
    if name in module.lora_A:
        found.append((module.lora_A[name].weight, module.lora_B[name].weight))
    if name in module.lora_embedding_A:
        found.append((module.lora_embedding_A[name], module.lora_embedding_B[name]))
    return found


def _squared(down: Tensor, up: Tensor) -> Tensor:
    down, up = down.float(), up.float()
    return ((up.T @ up) * (down @ down.T)).sum()
