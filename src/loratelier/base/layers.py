"""The layers of a model as an adapter meets them: their kinds, shapes and dense weights.

Every layer that takes a low-rank update is a linear map ``y = W x`` with ``W`` [d_out, d_in],
however its class stores the weight: ``nn.Linear`` as it is, GPT-2's ``Conv1D`` transposed, an
embedding as the map of one-hot vectors, bitsandbytes packed in 4 bits.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from loratelier.base.narrow import NarrowEmbedding

Kind = Literal["linear", "embedding"]


@dataclass(frozen=True)
class Layer:
    """A linear map of a model; an embedding's ``d_in`` is the size of the vocabulary."""

    kind: Kind
    d_in: int
    d_out: int


def find(model: nn.Module, name: str) -> nn.Module | None:
    """Return the module of that name, or None."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def layer_of(module: nn.Module | None) -> Layer | None:
    """Return the linear map that a module is, or None; 4-bit layers are linear layers too."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Linear):
        return Layer("linear", module.in_features, module.out_features)
    if isinstance(module, Conv1D):
        return Layer("linear", int(module.weight.shape[0]), int(module.weight.shape[1]))
    if isinstance(module, nn.Embedding):
        return Layer("embedding", module.num_embeddings, module.embedding_dim)
    return None


def layers(model: nn.Module) -> dict[str, Layer]:
    """Return every linear map of a model by name."""
    found = {name: layer_of(module) for name, module in model.named_modules()}
    return {name: layer for name, layer in found.items() if layer is not None}


def module_names(model: nn.Module) -> list[str]:
    """Return the names of all modules inside a model."""
    return [name for name, _ in model.named_modules() if name]


def ends(model: Any) -> set[str]:
    """Return the names of the input embedding and of the output layer."""
    two = (model.get_input_embeddings(), model.get_output_embeddings())
    return {name for name, module in model.named_modules() if any(module is one for one in two)}


def dense(module: nn.Module) -> Tensor:
    """Return the weight of a linear map as float32 [d_out, d_in]; 4-bit weights are unpacked."""
    weight: Any = module.weight
    if is_4bit(module):
        import bitsandbytes

        flat: Tensor = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
        return flat.view(weight.quant_state.shape).float()
    return stored(module, weight.detach()).float()


def stored(module: nn.Module, weight: Tensor) -> Tensor:
    """Turn a weight between [d_out, d_in] and the layout that the module's class stores."""
    return weight if isinstance(module, nn.Linear) else weight.T


def is_4bit(module: nn.Module) -> bool:
    """Whether a layer's weight is packed by bitsandbytes."""
    return type(module).__name__ == "Linear4bit"


def device_of(module: nn.Module) -> torch.device:
    """Return where a module's weights are."""
    return next(module.parameters()).device


def adds_bias(module: nn.Module | None) -> bool:
    """Whether a module adds its ``bias`` last, so that another bias is another summand."""
    from transformers.pytorch_utils import Conv1D

    if not isinstance(module, nn.Linear | nn.LayerNorm | Conv1D):
        return False
    return isinstance(module.bias, Tensor)


def embedding_scale(module: nn.Module) -> Tensor | None:
    """Return what an embedding multiplies its rows with, as Gemma's does; None for a plain one.

    Raises:
        NotImplementedError: the class computes its output in a way that we do not know.
    """
    if type(module).forward in (nn.Embedding.forward, NarrowEmbedding.forward):
        return None
    scale = getattr(module, "embed_scale", None)
    if not isinstance(scale, Tensor):
        raise NotImplementedError(type(module).__name__)
    return scale


def tied_output(model: Any, name: str) -> str | None:
    """Return the name of the output layer whose weight is that of the input embedding ``name``."""
    embedding: Any = model.get_input_embeddings()
    output: Any = model.get_output_embeddings()
    own: Any = find(model, name)
    if own is None or output is None or own is not embedding or embedding is output:
        return None
    if output.weight is not own.weight:
        return None
    names: dict[Any, str] = {module: each for each, module in model.named_modules()}
    return names[output]


def block_of(name: str) -> int | None:
    """Return the number of the block that a layer is in, by its name; None outside of blocks."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def modules_of(model: nn.Module, kind: type[Any]) -> dict[str, Any]:
    """Return the modules of a class by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}


def ends_by_role(model: Any) -> dict[str, str]:
    """Return the names of the input embedding ("embed") and of the output layer ("head")."""
    roles = {"embed": model.get_input_embeddings(), "head": model.get_output_embeddings()}
    return {
        role: name
        for role, module in roles.items()
        for name, each in model.named_modules()
        if each is module
    }


def expert_parameters(model: nn.Module) -> list[str]:
    """Return the names of the weights that hold all experts of a block: [experts, ., .]."""
    return [
        f"{name}.{parameter}"
        for name, module in model.named_modules()
        if not isinstance(module, nn.Conv1d)
        for parameter, weight in module.named_parameters(recurse=False)
        if weight.ndim == 3 and block_of(name) is not None
    ]
