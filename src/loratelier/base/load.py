"""``load_base``: a base from the demo package, the hub, a folder, or a GGUF file."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loratelier.base import demo, gguf, hub
from loratelier.base.base import Base
from loratelier.base.fingerprint import of_files
from loratelier.base.folder import check_folder, require_whole, weight_files
from loratelier.base.narrow import hold_ends_in_16_bits
from loratelier.base.quiet import quiet, reason
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
        quantization: ``"nf4"`` for 4 bits with double quantisation through bitsandbytes. The
            embedding and the output layer are then held in bfloat16 whatever the dtype, which is
            what is computed in.
        device: without it a GPU if there is one, else the CPU.

    Raises:
        InputError: an unknown base, one that cannot be fetched, weights that are pickles, a folder
            that is no base, an unknown dtype, quantization or device.
    """
    place = _device(device)
    kind = _dtype(dtype, place)
    options = _quantized(quantization, kind, place)
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
    if text and os.path.isdir(path):  # noqa: PTH112 - a text too long for a path is no folder
        check_folder(path)
        return Found(str(path.resolve()), path.resolve().name, path)
    if os.path.isfile(path):  # noqa: PTH113
        return Found(str(path.resolve()), path.stem, gguf.folder_of(path))
    if _HUB_ID.fullmatch(text) and not text.startswith((".", "/")):
        folder = hub.fetch(text)
        check_folder(folder)
        return Found(text, text, folder)
    raise InputError(
        f"There is no base '{text}': no such file or folder, and no hub id",
        did_you_mean(text, ["demo"])
        if "/" not in text and text
        else "Give 'demo', a hub id such as org/name, a folder, or a GGUF file",
    )


def _load(
    found: Found, dtype: torch.dtype, device: torch.device, options: dict[str, Any]
) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet():
        try:
            # Said to both: unsaid, transformers asks the person whether to run the folder's code.
            tokenizer = AutoTokenizer.from_pretrained(
                found.folder, local_files_only=True, trust_remote_code=False
            )
            model, told = AutoModelForCausalLM.from_pretrained(
                found.folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # require_whole names the tensor, transformers not
                **options,
                **({"device_map": {"": device}} if options else {}),
            )
        except Exception as error:  # transformers raises many kinds for a folder it cannot read
            raise InputError(f"The base {found.name} cannot be loaded ({reason(error)})") from error
    require_whole(told, f"The base {found.name}")
    if not options:
        model = model.to(device)
    elif dtype == torch.float32:
        hold_ends_in_16_bits(model)
    return model.eval().requires_grad_(False), tokenizer


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"There is no device '{device}'", "Use cpu, cuda or cuda:0") from error
    try:
        # The one test that holds for every kind of device and for its number; "meta" has no
        # numbers to read back.
        torch.zeros(1, device=place).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"There is no device '{device}' on this machine", "Use cpu") from error
    return place


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    kind = dtype if isinstance(dtype, torch.dtype) else _DTYPES.get(dtype)
    if kind is None or kind not in _DTYPES.values():
        raise InputError(f"A base cannot be in dtype '{dtype}'", did_you_mean(str(dtype), _DTYPES))
    return kind


def _quantized(
    quantization: str | None, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
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
        # Few CPUs multiply in 16 bits; some are thirty times slower at it.
        bnb_4bit_compute_dtype=torch.float32 if device.type == "cpu" else dtype,
    )
    return {"quantization_config": config}
