"""A base's folder in transformers' format: what must be in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loratelier.kit.errors import InputError


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that transformers would load from a folder.

    Raises:
        InputError: there are none, or one of an index is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            files = [folder / name for name in sorted(set(named))]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index} is no index of weights", "Fetch it again") from error
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


def check_folder(folder: Path) -> None:
    """Make sure that a folder holds a base: config, whole weights, tokenizer.

    Raises:
        InputError: something of it is missing, or it is an adapter.
    """
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


def require_whole(told: Mapping[str, Any], where: str) -> None:
    """Make sure that every weight came from the file: transformers fills a gap with random numbers.

    Args:
        told: what ``from_pretrained`` reports with ``output_loading_info``.
        where: names the file or folder in errors.

    Raises:
        InputError: a weight is missing, or has another shape than the config says.
    """
    missing = sorted(told["missing_keys"])
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{where} lacks the weights {missing[0]}{others}",
            "Is it a whole causal language model?",
        )
    for name, stored, wanted in sorted(told["mismatched_keys"]):
        raise InputError(
            f"{where}: {name} is {list(stored)}, and the config makes it {list(wanted)}"
        )
