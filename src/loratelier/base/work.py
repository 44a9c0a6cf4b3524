"""How many floating-point operations training a model takes, counted over its matrices.

A matrix multiplication counts 2 operations per weight and token; going back to its input as many,
and as many again for the gradient of a weight that is trained. Attention over the text and
elementwise work are left out, as in the model FLOPs of PaLM (arXiv:2204.02311, appendix B), and so
are the adapter's own thin matrices.
"""

from dataclasses import dataclass
from typing import Any

from loratelier.base.decoder import head_of


@dataclass(frozen=True)
class Work:
    """Operations of a step of training: ``token`` for each token read, ``target`` for each target
    whose logits are made."""

    token: float
    target: float

    def of(self, tokens: int, targets: int) -> float:
        """Return the operations of a step."""
        return self.token * tokens + self.target * targets


def work_of(model: Any, first_layer: int, *, trains_weights: bool = False) -> Work:
    """Count the work of training a model.

    Args:
        model: a transformers causal model, with or without an adapter's layers in it.
        first_layer: the lowest layer that is adapted; nothing goes back below it.
        trains_weights: the base's own weights are trained.
    """
    config = model.config.get_text_config()
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    active = getattr(config, "num_experts_per_tok", None)
    share = active / experts if experts and active else 1.0
    token = 0.0
    back = 2 if trains_weights else 1
    for name, weight in model.named_parameters():
        layer = next((int(part) for part in name.split(".") if part.isdigit()), None)
        if layer is None or weight.dim() < 2 or "lora_" in name:
            continue
        size = _dense_size(weight) * (share if weight.dim() == 3 else 1.0)
        token += 2 * size * (1 + (back if layer >= first_layer else 0))
    head = head_of(model)
    target = 2.0 * _dense_size(head.weight) * (1 + back) if head is not None else 0.0
    return Work(token, target)


def _dense_size(weight: Any) -> int:
    """Return how many numbers a weight stands for; a 4-bit one packs two in a byte."""
    state = getattr(weight, "quant_state", None)
    return int(state.shape.numel()) if state is not None else int(weight.numel())
