"""Before the first step: what the run will take in memory and time, and whether it fits."""

import psutil
import torch
from peft.tuners.lora import LoraLayer

from loratelier.base import Base
from loratelier.base.layers import modules_of
from loratelier.base.packed import Apart
from loratelier.base.plan import MemoryPlan, Method, Training, plan_training
from loratelier.base.plan.machine import free_memory
from loratelier.base.plan.pace import SHARE
from loratelier.base.plan.trace import Attention
from loratelier.base.work import Work
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark
from loratelier.train.learner import Learner
from loratelier.train.loop import Plan
from loratelier.train.packing import Pack
from loratelier.train.recipe import Recipe
from loratelier.train.watch import measured_peak

# What a run needs may be a fifth less than was planned: only what is beyond that is certain.
_CERTAIN = 0.8
_GIB = 2**30


def say_what_it_takes(base: Base, recipe: Recipe, plan: Plan, learner: Learner, work: Work) -> None:
    """Remark what the run takes, and warn where it does not fit.

    Args:
        base: with the adapter's layers in it.
        recipe: of the run.
        plan: its packs.
        learner: what is trained.
        work: operations for a token.

    Raises:
        InputError: it is certain that the memory is not there.
    """
    try:
        foreseen = foresee(base, recipe, plan, learner)
    except InputError as error:
        # A model that cannot be walked without weights can be trained all the same.
        remark(f"Memory is not planned: {error.what}")
        return
    free = free_memory(base.device) + _held_already(base.device)
    remark(
        f"Memory: about {_gib(foreseen.total)} ({_parts(foreseen)}); {_where(base.device)} has "
        f"{_gib(free)} for it; time about {_minutes(_seconds(base, recipe, plan, work))}"
    )
    if foreseen.total <= free:
        return
    mend = _mend(recipe)
    if foreseen.total * _CERTAIN > free + _swap(base.device):
        raise InputError(
            f"'{recipe.name}' needs about {_gib(foreseen.total)} of memory, and there are "
            f"{_gib(free)}",
            mend,
        )
    remark(f"That may be too little: {_gib(foreseen.total)} against {_gib(free)}. {mend}")


def foresee(base: Base, recipe: Recipe, plan: Plan, learner: Learner) -> MemoryPlan:
    """Plan the memory of a run from its own packs and its own adapted layers.

    Raises:
        InputError: the model cannot be walked without its weights.
    """
    packs = [pack for epoch in plan.epochs for step in epoch for pack in step.packs]
    largest = max(packs, key=lambda pack: (pack.ids.numel(), pack.targets))
    pulls = (recipe.guards.pull(replayed=pack.replayed) for pack in packs)
    return plan_training(
        base,
        Training(
            method=_method(recipe),
            sites=_sites(learner),
            dtype=base.dtype,
            shape_at_once=_shape(largest),
            targets_at_once=max(pack.targets for pack in packs),
            measured_at_once=max(map(_tokens, plan.held_out), default=0),
            packs=max(len(step.packs) for epoch in plan.epochs for step in epoch),
            attention=_attention(base, learner.reader.apart),
            pulls=any(pull is not None for pull in pulls),
            checkpointing=recipe.checkpointing,
            device="cuda" if base.device.type == "cuda" else "cpu",
        ),
    )


def _method(recipe: Recipe) -> Method:
    if recipe.trains_the_base:
        return "full"
    return "lora" if recipe.quantization is None else "qlora"


def _sites(learner: Learner) -> dict[str, int]:
    """Return the adapted layers by the base's own names, and their ranks."""
    found = {}
    for name, layer in modules_of(learner.reader.model, LoraLayer).items():
        # PEFT keeps the halves of an embedding apart, and wraps weights of experts in its layer.
        for rank in layer.r.values():
            found[name.removesuffix(".base_layer")] = int(rank)
    return found


def _shape(pack: Pack) -> tuple[int, int]:
    rows, tokens = pack.ids.shape
    return rows, tokens


def _tokens(pack: Pack) -> int:
    return pack.ids.numel()


def _attention(base: Base, apart: Apart) -> Attention:
    if apart == "rows":
        half = base.dtype in (torch.bfloat16, torch.float16)
        return "varlen" if base.device.type == "cuda" and half else "rows"
    return "eager" if base.model.config._attn_implementation == "eager" else "padded"


def _seconds(base: Base, recipe: Recipe, plan: Plan, work: Work) -> float:
    """Return how long the steps take at a usual share of the peak, measured now."""
    peak = measured_peak(base.dtype, base.device)
    steps = [step for epoch in plan.epochs for step in epoch][: plan.steps(recipe)]
    done = sum(work.of(step.tokens, step.targets) for step in steps)
    return done / (peak * SHARE)


def _held_already(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def _swap(device: torch.device) -> int:
    return int(psutil.swap_memory().free) if device.type == "cpu" else 0


def _where(device: torch.device) -> str:
    return "the GPU" if device.type == "cuda" else "this machine"


def _parts(plan: MemoryPlan) -> str:
    largest = sorted(plan.parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {_gib(size)}" for name, size in largest[:4] if size)


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= 0.1 * _GIB else f"{size / 2**20:.0f} MiB"


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _mend(recipe: Recipe) -> str:
    """Name what would make the run smaller, and is not done yet."""
    if recipe.trains_the_base:
        return "Train an adapter (objective: sft), or a smaller base"
    ways = [] if recipe.checkpointing else ["--set checkpointing=true"]
    at_once = recipe.pack_tokens or recipe.batch_tokens
    if at_once > 128:
        ways.append(f"--set pack_tokens={max(128, at_once // 2)}")
    if recipe.quantization is None:
        ways.append("--set quantization=nf4")
    return f"Try {' or '.join(ways)}" if ways else "Take a smaller base"
