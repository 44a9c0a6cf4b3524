"""``load_base``: a base from the demo package, the hub, a folder, or a GGUF file."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loratelier.base import demo, gguf, hub
from loratelier.base.base import Base
from loratelier.base.fingerprint import of_files
from loratelier.base.quiet import quiet
from loratelier.kit.errors import InputError, did_you_mean

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
_QUANTIZATIONS = ("nf4",)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Found:
    """A base on this machine: the folder with its weights, and what to call it."""

    spec: str
    name: str
    folder: Path


def load_base(
    spec: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    quantization: str | None = None,
    device: str | torch.device | None = None,
) -> Base:
    """Load a base; fetch it first when it is not on this machine.

    Args:
        spec: ``"demo"``, a hub id such as ``"Qwen/Qwen2.5-0.5B-Instruct"``, a folder in
            transformers' format, or a GGUF file (dequantised once and kept).
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or a torch dtype; without it fp32 on a
            CPU (exact, and no slower there) and bf16 on a GPU.
        quantization: ``"nf4"`` for 4 bits with double quantisation through bitsandbytes.
        device: without it a GPU if there is one, else the CPU.

    Raises:
        InputError: an unknown base, one that cannot be fetched, weights that are pickles, a folder
            that is no base, an unknown dtype, quantization or device.
    """
    place = _device(device)
    kind = _dtype(dtype, place)
    options = _quantized(quantization, kind)
    found = find_base(spec)
    fingerprint = of_files(weight_files(found.folder))
    model, tokenizer = _load(found, kind, place, options)
    return Base(
        model=model,
        tokenizer=tokenizer,
        fingerprint=fingerprint,
        spec=found.spec,
        name=found.name,
        dtype=kind,
        quantization=quantization,
        device=place,
    )


def find_base(spec: str | Path) -> Found:
    """Return the folder of a base, fetching or converting it when it is not there yet.

    Raises:
        InputError: see :func:`load_base`.
    """
    text = str(spec)
    path = Path(text).expanduser()
    if text == "demo":
        return Found("demo", demo.NAME, demo.fetch_demo())
    if text and path.is_dir():
        _check_folder(path)
        return Found(str(path.resolve()), path.resolve().name, path)
    if path.is_file():
        return Found(str(path.resolve()), path.stem, gguf.folder_of(path))
    if _HUB_ID.fullmatch(text) and not text.startswith((".", "/")):
        folder = hub.fetch(text)
        _check_folder(folder)
        return Found(text, text, folder)
    raise InputError(
        f"There is no base '{text}': no such file or folder, and no hub id",
        did_you_mean(text, ["demo"])
        if "/" not in text and text
        else "Give 'demo', a hub id such as org/name, a folder, or a GGUF file",
    )


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that transformers would load from a folder.

    Raises:
        InputError: there are none, or one of an index is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        files = [folder / name for name in sorted(set(named))]
        missing = next((file for file in files if not file.exists()), None)
        if missing:
            raise InputError(f"{missing} is missing, and the index names it", "Fetch it again")
        return files
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise InputError(
            f"{folder} holds its weights as pickles, which can run code when they are opened",
            "Use a copy of the base in safetensors",
        )
    raise InputError(f"{folder} holds no model.safetensors", "Is it a model's folder?")


def _check_folder(folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        raise InputError(
            f"{folder} is an adapter, not a base",
            "Bring it into the store with `loratelier adapters import`, and name a base",
        )
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} is no base: it has no config.json")
    weight_files(folder)
    tokenizers = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    if not any((folder / name).exists() for name in tokenizers):
        raise InputError(f"{folder} has no tokenizer", "Copy tokenizer.json beside the weights")


def _load(
    found: Found, dtype: torch.dtype, device: torch.device, options: dict[str, Any]
) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(found.folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                found.folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                **options,
                **({"device_map": {"": device}} if options else {}),
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            reason = str(error).strip().splitlines()
            raise InputError(
                f"The base {found.name} cannot be loaded ({reason[0] if reason else error!r})"
            ) from error
    if not options:
        model = model.to(device)
    return model.eval().requires_grad_(False), tokenizer


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"There is no device '{device}'", "Use cpu, cuda or cuda:0") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"There is no device '{device}' on this machine", "Use cpu")
    return place


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in _DTYPES:
        raise InputError(f"There is no dtype '{dtype}'", did_you_mean(dtype, _DTYPES))
    return _DTYPES[dtype]


def _quantized(quantization: str | None, dtype: torch.dtype) -> dict[str, Any]:
    if quantization is None:
        return {}
    if quantization not in _QUANTIZATIONS:
        raise InputError(
            f"There is no quantization '{quantization}'", did_you_mean(quantization, _QUANTIZATIONS)
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise InputError(
            "nf4 needs bitsandbytes, which is not installed", "pip install 'loratelier[quant]'"
        ) from error
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config}
