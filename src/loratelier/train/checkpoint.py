"""What a stopped run leaves behind, so that it can go on exactly where it was."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loratelier.kit.errors import InputError
from loratelier.kit.files import atomic_folder
from loratelier.train.loop import Point, State, trainable

_TENSORS, _FACTS = "state.safetensors", "state.json"


def save(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: State,
    run: dict[str, Any],
) -> None:
    """Write the state of a run; an earlier one stays until the new one is whole.

    Args:
        folder: where the run's state lives.
        model: its trainable weights are written.
        optimizer: its moments are written.
        state: the counters, the curve, and the kept weights.
        run: what must be equal for a resumed run: recipe, corpus hash, base fingerprint.
    """
    tensors = {f"weight/{name}": p.detach() for name, p in trainable(model).items()}
    tensors |= {f"kept/{name}": tensor for name, tensor in state.kept.items()}
    for name, parameter in trainable(model).items():
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer/{key}/{name}"] = value
    facts = {
        "run": run,
        "step": state.step,
        "kept_step": state.kept_step,
        "waited": state.waited,
        "tokens": state.tokens,
        "seconds": state.seconds,
        "curve": [asdict(point) for point in state.curve],
    }
    with atomic_folder(folder, replace=True) as scratch:
        save_file({key: t.contiguous().clone() for key, t in tensors.items()}, scratch / _TENSORS)
        (scratch / _FACTS).write_text(json.dumps(facts, indent=2), encoding="utf-8")


def load(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, run: dict[str, Any]
) -> State:
    """Put a saved state into ``model`` and ``optimizer`` and return the rest of it.

    Raises:
        InputError: nothing was saved there, it is damaged, or it belongs to another recipe, corpus
            or base (the first difference is named).
    """
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        tensors = load_file(folder / _TENSORS)
    except FileNotFoundError as error:
        raise InputError(
            "There is nothing to resume for this adapter", "Train without --resume"
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder} is damaged ({error})", "Train without --resume") from error
    _check_same(facts["run"], run)
    _fill(model, optimizer, tensors)
    return State(
        step=facts["step"],
        curve=[Point(**point) for point in facts["curve"]],
        kept=_under("kept/", tensors),
        kept_step=facts["kept_step"],
        waited=facts["waited"],
        tokens=facts["tokens"],
        seconds=facts["seconds"],
    )


def _check_same(saved: dict[str, Any], now: dict[str, Any]) -> None:
    for key in sorted(set(saved) | set(now)):
        if saved.get(key) != now.get(key):
            raise InputError(
                f"The stopped run had {key} = {saved.get(key)}, this one has {now.get(key)}",
                "Resume with the same recipe, corpus and base, or train anew without --resume",
            )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): tensor
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }


def _fill(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    weights = _under("weight/", tensors)
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(weights[name])
            moments = {
                key.split("/")[1]: tensor.clone()
                for key, tensor in tensors.items()
                if key.startswith("optimizer/") and key.split("/", 2)[2] == name
            }
            optimizer.state[parameter] = {
                # AdamW keeps its step count on the CPU wherever the moments are.
                key: tensor if key == "step" else tensor.to(parameter.device)
                for key, tensor in moments.items()
            }
