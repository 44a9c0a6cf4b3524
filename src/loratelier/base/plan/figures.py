"""What a plan is made for: configs by path or by name, and GPUs by their makers' figures."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from loratelier.base.demo import demo_folder
from loratelier.base.quiet import quiet, reason
from loratelier.kit.errors import InputError, did_you_mean, nearest

_SHAPES = ("1b", "7b", "30b-a3b", "70b")


@dataclass(frozen=True)
class Shape:
    """A config with what to call it; ``source`` says where it is from."""

    name: str
    config: Any
    source: str


@dataclass(frozen=True)
class Gpu:
    """A GPU: bytes of memory and a second, floating-point operations a second (dense).

    ``bf16`` is None where the chip does not compute in it.
    """

    name: str
    memory: int
    bandwidth: float
    bf16: float | None
    fp32: float


def shape_of(spec: str | Path) -> Shape:
    """Return the config of a base without loading it and without a network.

    Args:
        spec: ``"demo"``, a model that is in the hub's cache, a folder, the path of a config.json,
            or one of our shapes: ``"1b"``, ``"7b"``, ``"30b-a3b"``, ``"70b"``.

    Raises:
        InputError: there is no such thing on this machine, or it is no config of a model that
            transformers knows.
    """
    text = str(spec)
    path = Path(text).expanduser()
    if text.lower() in _SHAPES:
        told = json.loads(_data(f"shapes/{text.lower()}.json"))
        return Shape(f"{text.lower()} ({told['about']})", config_of(told["config"]), told["source"])
    if text == "demo":
        path = demo_folder()
        if not path.exists():
            raise InputError("The demo base is not here", "loratelier bases fetch demo")
    elif not path.exists():
        path = _cached(text)
    file = path / "config.json" if path.is_dir() else path
    if not file.exists():
        raise InputError(f"{path} has no config.json", "Is it a model's folder?")
    name = text if text == "demo" or "/" not in text else file.resolve().parent.name
    return Shape(name, config_of(_read(file)), str(file))


def gpus() -> dict[str, Gpu]:
    """Return the GPUs that we have figures of, by name, smallest memory first."""
    found = {
        name: Gpu(
            name=name,
            memory=told["memory_mib"] * 2**20,
            bandwidth=told["gigabytes_per_second"] * 1e9,
            bf16=told["bf16_tflops"] * 1e12 if told["bf16_tflops"] else None,
            fp32=told["fp32_tflops"] * 1e12,
        )
        for name, told in _figures()["gpus"].items()
    }
    return dict(sorted(found.items(), key=lambda each: each[1].memory))


def gpu_source() -> str:
    """Return where the figures of the GPUs are from."""
    return str(_figures()["source"])


def gpu(name: str) -> Gpu:
    """Return a GPU by its name, however it is spelled.

    Raises:
        InputError: we have no figures of it.
    """
    known = {_plain(each): own for each, own in gpus().items()}
    if _plain(name) in known:
        return known[_plain(name)]
    close = nearest(_plain(name), known)
    raise InputError(
        f"There are no figures of a GPU '{name}'",
        f"Did you mean '{known[close].name}'?" if close else f"Known: cpu, {', '.join(gpus())}",
    )


def _plain(name: str) -> str:
    words = "".join(each for each in name.lower() if each.isalnum())
    for maker in ("nvidia", "geforce", "rtx"):
        words = words.removeprefix(maker)
    return words.removesuffix("gb")


def _read(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        if stream.read(4) == b"GGUF":
            raise InputError(
                f"{file} is a GGUF file, whose config is made when it is converted",
                "Fetch it with `loratelier bases fetch`, and give the folder from `bases list`",
            )
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is no config: it cannot be read as JSON ({error})") from error
    if not isinstance(told, dict) or not isinstance(told.get("model_type"), str):
        raise InputError(f"{file} is no config: it has no model_type")
    return told


def config_of(told: dict[str, Any]) -> Any:
    """Return a config from what its JSON says.

    Raises:
        InputError: transformers knows no such model, or a value means nothing.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = told["model_type"]
    if kind not in CONFIG_MAPPING:
        raise InputError(
            f"transformers knows no model_type '{kind}'", _mend(kind, list(CONFIG_MAPPING.keys()))
        )
    try:
        with quiet():
            return CONFIG_MAPPING[kind].from_dict(told)
    except Exception as error:  # transformers raises many kinds for values that mean nothing
        raise InputError(f"The config of model_type '{kind}' is wrong ({reason(error)})") from error


def _mend(kind: str, known: list[str]) -> str | None:
    close = nearest(kind, known)
    return f"Did you mean '{close}'?" if close else None


def _cached(name: str) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        found = None
    if isinstance(found, str):
        return Path(found)
    raise InputError(
        f"There is no config '{name}' on this machine",
        did_you_mean(name, ["demo", *_SHAPES])
        if "/" not in name
        else "Give the path of its config.json, which has no weights in it",
    )


@cache
def _figures() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(_data("gpus.json"))
    return told


def _data(name: str) -> str:
    return (files("loratelier.base") / "data" / name).read_text(encoding="utf-8")
