"""The tensors of an adapter, read from safetensors and checked before anything uses them."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from loratelier.adapter.config import LoraSettings
from loratelier.adapter.inside import inside
from loratelier.kit.errors import InputError

FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."

Pair = tuple[Tensor, Tensor]

# What adapters are stored in; 8-bit floats and whole numbers would need scales that are not there.
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def read_pairs(folder: Path, settings: LoraSettings) -> dict[str, Pair]:
    """Read ``site -> (A [r, d_in], B [d_out, r])`` from an adapter's folder.

    Raises:
        InputError: the file is missing, a pickle, damaged, a link out of the folder, or its
            tensors are not those of the config.
    """
    path = inside(folder, FILE)
    if not path.exists():
        if (folder / "adapter_model.bin").exists():
            raise InputError(
                f"{folder} holds a pickle, adapter_model.bin, which can run code when it is opened",
                "Save the adapter as safetensors",
            )
        raise InputError(f"{folder} is no whole adapter: {FILE} is missing")
    try:
        return pairs_from(load_file(path), settings, str(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged ({error})", "Fetch or train it again") from error


def pairs_from(
    tensors: Mapping[str, Tensor], settings: LoraSettings, where: str
) -> dict[str, Pair]:
    """Sort tensors into pairs by site, in the order of layers and names."""
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        found = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight", key)
        if not found:
            raise InputError(f"{where}: the tensor {key} belongs to no LoRA of a linear layer")
        if tensor.dtype not in _DTYPES:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(
                f"{where}: {key} is stored as {kind}", "Save it as float32, bfloat16 or float16"
            )
        halves.setdefault(found[1], {})[found[2]] = tensor
    if not halves:
        raise InputError(f"{where} holds no tensors")
    return {site: _pair(halves[site], site, settings, where) for site in in_order(halves)}


def _pair(half: dict[str, Tensor], site: str, settings: LoraSettings, where: str) -> Pair:
    for side in "AB":
        if side not in half:
            raise InputError(f"{where}: {site} has no lora_{side}")
        if half[side].ndim != 2:
            raise InputError(f"{where}: {site}.lora_{side} has {half[side].ndim} dimensions, not 2")
    down, up = half["A"], half["B"]
    rank = settings.rank_at(site)
    if down.shape[0] != rank or up.shape[1] != rank:
        raise InputError(
            f"{where}: {site} has A {list(down.shape)} and B {list(up.shape)}, and its config "
            f"says rank {rank}"
        )
    # Last, because it alone reads the values: a file of the wrong form costs nothing.
    for side in "AB":
        if not torch.isfinite(half[side]).all():
            raise InputError(f"{where}: {site}.lora_{side} holds values that are no numbers")
    return down, up


def flat(pairs: Mapping[str, Pair]) -> dict[str, Tensor]:
    """Return the tensors under the names that PEFT stores them by."""
    return {
        f"{PREFIX}{site}.lora_{side}.weight": half.detach().contiguous()
        for site, pair in pairs.items()
        for side, half in zip("AB", pair, strict=True)
    }


def in_order(sites: Mapping[str, object]) -> list[str]:
    """Return site names so that layer 2 comes before layer 10."""
    return sorted(
        sites,
        key=lambda site: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", site)],
    )
