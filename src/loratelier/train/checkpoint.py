"""What a stopped run leaves behind, so that it can go on exactly where it was.

One file that is replaced as a whole: whenever a run is killed, the last state that was saved is
there. A disk that is full keeps the earlier state, and the run goes on.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from loratelier.kit.errors import InputError
from loratelier.kit.files import atomic_file
from loratelier.kit.progress import remark
from loratelier.train.loop import Point, State, as_part_of, trainable, whole

FILE = "state.safetensors"


def write(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: State,
    run: dict[str, Any],
    *,
    writes: bool = True,
) -> None:
    """Write the state of a run; an earlier one stays until the new one is whole.

    A disk that has no room for it is said and does not stop the run.

    Args:
        folder: where the run's state lives.
        model: its trainable weights are written.
        optimizer: its moments are written.
        state: the counters, the curve, the losses, and the kept weights.
        run: what must be equal for a resumed run: recipe, corpus hash, base fingerprint.
        writes: this process writes; all of them must call, as each may hold a part.
    """
    tensors = {f"weight/{name}": whole(p) for name, p in trainable(model).items()}
    tensors |= {f"kept/{name}": tensor for name, tensor in state.kept.items()}
    tensors |= {f"far/{name}": tensor for name, tensor in state.far.items()}
    for name, parameter in trainable(model).items():
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer/{key}/{name}"] = whole(value)
    if not writes:
        return
    facts = {
        "run": run,
        "step": state.step,
        "kept_step": state.kept_step,
        "far_step": state.far_step,
        "waited": state.waited,
        "tokens": state.tokens,
        "seconds": state.seconds,
        "curve": [asdict(point) for point in state.curve],
        "losses": state.losses,
    }
    try:
        # Written from where the tensors are: where all weights are trained, a copy would be several
        # times the base.
        with atomic_file(folder / FILE) as scratch:
            save_file(
                {key: t.contiguous() for key, t in tensors.items()},
                scratch,
                {"facts": json.dumps(facts)},
            )
    except (OSError, SafetensorError) as error:
        remark(f"The state of step {state.step} could not be saved ({error}): going on")


def load(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, run: dict[str, Any]
) -> State | None:
    """Put a saved state into ``model`` and ``optimizer`` and return the rest of it.

    Returns:
        None where no state was saved.

    Raises:
        InputError: it is damaged, or it belongs to another recipe, corpus or base (the first
            difference is named).
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as stream:
            facts = json.loads(stream.metadata()["facts"])
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{path} is damaged ({error})", "Train without --resume") from error
    _check_same(facts["run"], run)
    _fill(model, optimizer, tensors)
    return State(
        step=facts["step"],
        curve=[Point(**point) for point in facts["curve"]],
        kept=_under("kept/", tensors),
        kept_step=facts["kept_step"],
        far=_under("far/", tensors),
        far_step=facts["far_step"],
        waited=facts["waited"],
        tokens=facts["tokens"],
        seconds=facts["seconds"],
        losses=facts["losses"],
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
    moments = _under("optimizer/", tensors)
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(as_part_of(parameter, weights[name]))
            own = {
                key.removesuffix(f"/{name}"): tensor.clone()
                for key, tensor in moments.items()
                if key.endswith(f"/{name}")
            }
            optimizer.state[parameter] = {
                # AdamW keeps its step count on the CPU wherever the moments are.
                key: tensor if key == "step" else as_part_of(parameter, tensor)
                for key, tensor in own.items()
            }
