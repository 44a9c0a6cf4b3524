"""The tensors of an adapter, read from safetensors and checked before anything uses them."""

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from loratelier.adapter.config import LoraSettings
from loratelier.adapter.extras import Extras, Pair
from loratelier.adapter.inside import inside
from loratelier.kit.errors import InputError

FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
_LARGEST_HEADER = 100_000_000  # bytes, as in safetensors' own reader
NESTED = ".base_layer"  # what PEFT wraps carries this in its name

# What adapters are stored in; 8-bit floats and whole numbers would need scales that are not there.
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}


@dataclass(frozen=True)
class Contents:
    """The tensors of an adapter, sorted: pairs of linear layers and embeddings, and the rest."""

    pairs: Mapping[str, Pair]
    extras: Extras


def read_outline(folder: Path, settings: LoraSettings) -> Contents:
    """Return what :func:`read_contents` would, as tensors that have shapes and no values.

    Only the file's header is read, so that a file of the wrong form or size costs nothing.
    """
    path = _file(folder)
    try:
        header = _header(path)
        outline = {key: _outline(key, part, path) for key, part in header.items()}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        raise _damaged(path, error) from error
    return sort(outline, settings, str(path))


def read_contents(folder: Path, settings: LoraSettings) -> Contents:
    """Read an adapter's tensors, their form first and their values only if it is right.

    Raises:
        InputError: the file is missing, a pickle, damaged, a link out of the folder, or its
            tensors are not those of the config or not finite.
    """
    read_outline(folder, settings)
    path = _file(folder)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise _damaged(path, error) from error
    return sort(tensors, settings, str(path))


def _file(folder: Path) -> Path:
    path = inside(folder, FILE)
    if path.exists():
        return path
    if (folder / "adapter_model.bin").exists():
        raise InputError(
            f"{folder} holds a pickle, adapter_model.bin, which can run code when it is opened",
            "Save the adapter as safetensors",
        )
    raise InputError(f"{folder} is no whole adapter: {FILE} is missing")


def _header(path: Path) -> dict[str, Any]:
    """Return what a safetensors file says of its tensors; the file is not mapped, only its start.

    Raises:
        ValueError: the file is not as long as its header says, or has none.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if not 2 <= length <= _LARGEST_HEADER:
            raise ValueError("it does not begin with a header")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    ends = [int(part["data_offsets"][1]) for part in header.values()]
    size, expected = path.stat().st_size, 8 + length + max(ends, default=0)
    if size != expected:
        raise ValueError(f"it has {size:,} bytes of {expected:,}")
    return dict(header)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged ({error})", "Fetch or train it again")


def _outline(key: str, part: Mapping[str, Any], path: Path) -> Tensor:
    dtype = _DTYPES.get(part["dtype"])
    if dtype is None:
        raise _stored_as(str(path), key, part["dtype"])
    return torch.empty(part["shape"], dtype=dtype, device="meta")


def _stored_as(where: str, key: str, kind: str) -> InputError:
    return InputError(f"{where}: {key} is stored as {kind}", "Save it as float32 or bfloat16")


@dataclass
class _Sorting:
    """The piles into which :func:`sort` puts tensors."""

    halves: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    experts: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    embeddings: set[str] = field(default_factory=set)
    up_biases: dict[str, Tensor] = field(default_factory=dict)
    magnitudes: dict[str, Tensor] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)
    tokens: dict[str, Tensor] = field(default_factory=dict)
    modules: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    copies: dict[str, Tensor] = field(default_factory=dict)


def sort(tensors: Mapping[str, Tensor], settings: LoraSettings, where: str) -> Contents:
    """Sort tensors by what they change, and check them against the config.

    Raises:
        InputError: a tensor that belongs to nothing in the config, one that is missing, of the
            wrong form or dtype, or with values that are not finite.
    """
    piles = _Sorting()
    for key, tensor in tensors.items():
        if tensor.dtype not in _DTYPES.values():
            raise _stored_as(where, key, str(tensor.dtype).removeprefix("torch."))
        if not key.startswith(PREFIX) or not _put(
            piles, key.removeprefix(PREFIX), tensor, settings
        ):
            raise InputError(
                f"{where}: the tensor {key} belongs to no LoRA that the config describes"
            )
    pairs = {
        site: _pair(piles.halves[site], site, settings.rank_at(site), where)
        for site in in_order(piles.halves)
    }
    experts = {
        site: _pair(piles.experts[site], site, None, where) for site in in_order(piles.experts)
    }
    extras = Extras(
        embeddings=frozenset(piles.embeddings),
        up_biases=piles.up_biases,
        magnitudes=piles.magnitudes,
        biases=piles.biases,
        tokens=piles.tokens,
        modules=piles.modules,
        experts=experts,
        copies={site: _digests(copy) for site, copy in piles.copies.items()},
    )
    if not pairs and not extras.sites:
        raise InputError(f"{where} holds no tensors")
    _check_companions(pairs, extras, settings, where)
    # Last, because it alone reads the values: a file of the wrong form costs nothing.
    for key, tensor in tensors.items():
        if tensor.device.type != "meta" and not torch.isfinite(tensor).all():
            raise InputError(f"{where}: {key} holds values that are no numbers")
    return Contents(pairs, extras)


def _put(piles: _Sorting, key: str, tensor: Tensor, settings: LoraSettings) -> bool:
    """Put a tensor on its pile; False when the config describes nothing that it could be."""
    saved = settings.saved_module(key)
    if saved is not None:
        piles.modules.setdefault(saved, {})[key.removeprefix(f"{saved}.")] = tensor
    elif found := re.fullmatch(r"(.+)\.lora_([AB])\.weight", key):
        site, side = found.groups()
        plain = site.replace(NESTED, "")
        expert = plain != site or settings.targets_parameter_of(plain)
        (piles.experts if expert else piles.halves).setdefault(site, {})[side] = tensor
    elif found := re.fullmatch(r"(.+)\.lora_embedding_([AB])", key):
        piles.halves.setdefault(found[1], {})[found[2]] = tensor
        piles.embeddings.add(found[1])
    elif settings.up_bias and (found := re.fullmatch(r"(.+)\.lora_B\.bias", key)):
        piles.up_biases[found[1]] = tensor
    elif settings.dora and (found := re.fullmatch(r"(.+)\.lora_magnitude_vector(\.weight)?", key)):
        piles.magnitudes[found[1]] = tensor
    elif settings.tokens and (
        found := re.fullmatch(r"(.+)\.token_adapter\.trainable_tokens_delta", key)
    ):
        piles.tokens[found[1]] = tensor
    elif settings.bias != "none" and (found := re.fullmatch(rf"(.+?)({NESTED})?\.bias", key)):
        piles.biases[found[1]] = tensor
    elif found := re.fullmatch(rf"(.+){NESTED}\.weight", key):
        piles.copies[found[1]] = tensor
    elif settings.ties and (found := re.fullmatch(r"(.+)\.weight", key)):
        piles.modules[found[1]] = {"weight": tensor}  # the fit sees to it that it is a tied end
    else:
        return False
    return True


def _pair(half: dict[str, Tensor], site: str, rank: int | None, where: str) -> Pair:
    for side in "AB":
        if side not in half:
            raise InputError(f"{where}: {site} has no lora_{side}")
        if half[side].ndim != 2:
            raise InputError(f"{where}: {site}.lora_{side} has {half[side].ndim} dimensions, not 2")
    down, up = half["A"], half["B"]
    # An expert's rank can only be told once the base says how many experts there are.
    expected = down.shape[0] if rank is None else rank
    if down.shape[0] != expected or up.shape[1] != expected:
        says = f"its config says rank {rank}" if rank else "the two do not fit each other"
        raise InputError(
            f"{where}: {site} has A {list(down.shape)} and B {list(up.shape)}, and {says}"
        )
    return down, up


def _check_companions(
    pairs: Mapping[str, Pair], extras: Extras, settings: LoraSettings, where: str
) -> None:
    """Hold that what goes with a pair is there for every pair, in its shape, and nowhere else."""
    linear = set(pairs) - extras.embeddings
    for table, sites, wanted, name in (
        (extras.magnitudes, set(pairs), settings.dora, "lora_magnitude_vector"),
        (extras.up_biases, linear, settings.up_bias, "lora_B.bias"),
    ):
        if wanted and (odd := sorted(sites ^ table.keys())):
            what = "no LoRA beside" if odd[0] in table else "no"
            raise InputError(f"{where}: {odd[0]} has {what} {name}")
        for site, vector in table.items():
            width = pairs[site][1].shape[0]
            if vector.shape != (width,):
                raise InputError(
                    f"{where}: {site}.{name} is {list(vector.shape)} instead of {[width]}"
                )
    for site in extras.copies:
        if site not in pairs:
            raise InputError(f"{where}: {PREFIX}{site}{NESTED}.weight belongs to no LoRA")
    for module, rows in extras.tokens.items():
        ids = settings.tokens_of(module)
        if rows.ndim != 2 or rows.shape[0] != len(ids):
            raise InputError(
                f"{where}: {module} has trained rows {list(rows.shape)}, and its config names "
                f"{len(ids)} tokens"
            )


def _digests(copy: Tensor) -> dict[str, str]:
    """Return digests of a weight in its own dtype and the narrower ones, for comparing."""
    if copy.device.type == "meta":
        return {}
    return {str(dtype): weight_digest(copy, dtype) for dtype in _narrower(copy.dtype)}


def _narrower(dtype: torch.dtype) -> list[torch.dtype]:
    half = [torch.bfloat16, torch.float16]
    return [dtype] if dtype in half else [dtype, *half]


def weight_digest(weight: Tensor, dtype: torch.dtype) -> str:
    """Return a digest of a weight's values in a dtype."""
    raw = weight.detach().to("cpu", dtype).contiguous().view(-1).view(torch.uint8)
    return hashlib.sha256(raw.numpy().data).hexdigest()


def flat(pairs: Mapping[str, Pair], extras: Extras) -> dict[str, Tensor]:
    """Return the tensors under the names that PEFT stores them by."""
    named: dict[str, Tensor] = {}
    for site, pair in {**pairs, **extras.experts}.items():
        for side, half in zip("AB", pair, strict=True):
            form = f"lora_embedding_{side}" if site in extras.embeddings else f"lora_{side}.weight"
            named[f"{site}.{form}"] = half
    for site, vector in extras.up_biases.items():
        named[f"{site}.lora_B.bias"] = vector
    for site, vector in extras.magnitudes.items():
        named[f"{site}.lora_magnitude_vector"] = vector
    for module, bias in extras.biases.items():
        named[f"{module}{NESTED if module in pairs else ''}.bias"] = bias
    for module, rows in extras.tokens.items():
        named[f"{module}.token_adapter.trainable_tokens_delta"] = rows
    for module, state in extras.modules.items():
        named |= {f"{module}.{key}": value for key, value in state.items()}
    return {f"{PREFIX}{key}": tensor.detach().contiguous() for key, tensor in named.items()}


def in_order(sites: Mapping[str, object]) -> list[str]:
    """Return site names so that layer 2 comes before layer 10."""
    return sorted(
        sites,
        key=lambda site: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", site)],
    )
