"""The training loop, read top to bottom.

One step is one pack of rows. Losses are made only where a token is learned. After each epoch the
held-out rows and general text are measured; the best state within the drift budget is kept.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from loratelier.base import Base
from loratelier.base.likelihood import bits_per_byte, target_losses
from loratelier.kit.progress import Bar, remark, task
from loratelier.train.measure import HeldOut, change, held_out
from loratelier.train.packing import Pack
from loratelier.train.recipe import Recipe

# The learning rate rises over the first 5% of the steps and falls along a cosine to 10%.
WARM_UP, FLOOR = 0.05, 0.1


@dataclass(frozen=True)
class Point:
    """One evaluation: what the state of ``step`` is worth and what it costs."""

    step: int
    epoch: int
    train_nll: float | None
    held_out_nll: float | None
    general_bpb: float
    drift: float  # relative rise of general_bpb over the base's


@dataclass
class State:
    """Everything that a stopped run needs to go on as if it had not stopped.

    ``kept`` are the trainable tensors of the best evaluation so far, by parameter name.
    """

    step: int = 0
    curve: list[Point] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    kept_step: int = 0
    waited: int = 0  # evaluations since the last better one
    tokens: int = 0
    seconds: float = 0.0

    @property
    def kept_point(self) -> Point:
        """The evaluation of the kept weights; the base's where nothing was kept."""
        return next(point for point in self.curve if point.step == self.kept_step)


@dataclass(frozen=True)
class Plan:
    """What a run goes through: the packs of every epoch, in order, and what it is measured on."""

    epochs: Sequence[Sequence[Pack]]
    held_out: Sequence[Pack]
    guard_texts: Sequence[str]

    def steps(self, recipe: Recipe) -> int:
        """How many steps the run takes if nothing stops it."""
        planned = sum(len(packs) for packs in self.epochs)
        return min(planned, recipe.max_steps or planned)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that training changes, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW without weight decay over the adapter's parameters."""
    return torch.optim.AdamW(trainable(model).values(), lr=recipe.learning_rate, weight_decay=0.0)


def run(
    base: Base,
    model: Any,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    plan: Plan,
    state: State,
    save: Callable[[State], None],
) -> State:
    """Train ``model`` from ``state`` on; on return it holds the kept weights.

    Args:
        base: the base under ``model``.
        model: the PEFT model; only its adapter is trained.
        optimizer: over the adapter's parameters, in the state that belongs to ``state``.
        recipe: what to do.
        plan: the packs and the measured texts.
        state: where to begin; a fresh one, or what a stopped run saved.
        save: called after each evaluation, with the weights and the optimizer as they then are.
    """
    total = plan.steps(recipe)
    if not state.curve:
        state.curve.append(_evaluate(base, model, plan, state, None, None))
    losses: list[float] = []
    with task("Training", total=total) as bar:
        bar.advance(state.step)
        for epoch, packs in enumerate(plan.epochs, start=1):
            if state.waited >= recipe.patience:
                remark(f"Stopped: {state.waited} evaluations without a better one")
                break
            done = sum(len(earlier) for earlier in plan.epochs[: epoch - 1])
            for pack in packs[max(0, state.step - done) :]:
                if state.step >= total:
                    break
                loss = _step(base, model, optimizer, recipe, pack, state, total, bar)
                if not math.isfinite(loss):
                    return _diverged(model, state)
                losses.append(loss)
            # An epoch that was measured before the run was stopped is not measured again.
            if state.step <= state.curve[-1].step:
                continue
            point = _evaluate(base, model, plan, state, epoch, sum(losses) / len(losses))
            losses.clear()
            _keep(model, recipe, state, point)
            save(state)
            if state.step >= total:
                break
    _restore(model, state)
    return state


def _step(
    base: Base,
    model: Any,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    pack: Pack,
    state: State,
    total: int,
    bar: Bar,
) -> float:
    began = perf_counter()
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * schedule(state.step, total)
    loss = target_losses(model, *pack.to(base.device).parts).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(trainable(model).values(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    state.step += 1
    state.tokens += pack.tokens
    state.seconds += perf_counter() - began
    value = float(loss.detach())
    bar.advance()
    bar.say(f"loss {value:.3f}, {state.tokens / state.seconds:.0f} tokens/s")
    return value


def schedule(step: int, total: int) -> float:
    """Return the share of the learning rate that step number ``step`` (from 0) uses."""
    warm = max(1, round(total * WARM_UP))
    if step < warm:
        return (step + 1) / warm
    along = (step - warm) / max(1, total - warm)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * along))


def _evaluate(
    base: Base,
    model: Any,
    plan: Plan,
    state: State,
    epoch: int | None,
    train_nll: float | None,
) -> Point:
    model.eval()
    measured: HeldOut | None = held_out(model, plan.held_out) if plan.held_out else None
    bpb = bits_per_byte(model, base.tokenizer, plan.guard_texts).value
    model.train()
    before = state.curve[0].general_bpb if state.curve else bpb
    point = Point(
        step=state.step,
        epoch=epoch or 0,
        train_nll=train_nll,
        held_out_nll=measured.nll if measured else None,
        general_bpb=bpb,
        drift=change(before, bpb),
    )
    remark(_sentence(point, state.curve[0] if state.curve else None))
    return point


def _sentence(point: Point, base: Point | None) -> str:
    parts = ["The base" if base is None else f"Epoch {point.epoch}, step {point.step}"]
    if point.train_nll is not None:
        parts.append(f"training loss {point.train_nll:.3f}")
    if point.held_out_nll is not None:
        held = f"held-out loss {point.held_out_nll:.3f}"
        if base is not None and base.held_out_nll is not None:
            held += f" ({change(base.held_out_nll, point.held_out_nll):+.1%})"
        parts.append(held)
    drift = "" if base is None else f" ({point.drift:+.2%})"
    parts.append(f"general text {point.general_bpb:.4f} bits per byte{drift}")
    return f"{parts[0]}: {', '.join(parts[1:])}"


def _keep(model: nn.Module, recipe: Recipe, state: State, point: Point) -> None:
    """Add the point to the curve and keep the weights if it is the best so far."""
    first = not state.kept
    better = first or _better(point, state.kept_point, recipe.guards.drift_budget)
    state.curve.append(point)
    if better:
        state.kept = {name: p.detach().clone() for name, p in trainable(model).items()}
        state.kept_step = point.step
        state.waited = 0
    else:
        state.waited += 1


def _better(new: Point, old: Point, budget: float | None) -> bool:
    """Say whether ``new`` is to be kept rather than ``old``: within budget first, then the loss.

    Where neither is within the budget, the one that drifted less is better. Without held-out rows
    there is nothing to choose by, and the later state is taken.
    """
    if budget is not None and (new.drift > budget or old.drift > budget):
        return new.drift <= budget or new.drift < old.drift
    if new.held_out_nll is None or old.held_out_nll is None:
        return True
    return new.held_out_nll < old.held_out_nll


def _diverged(model: nn.Module, state: State) -> State:
    remark(
        f"The loss is no longer a number at step {state.step}; the state of step "
        f"{state.kept_step} is kept. A lower learning_rate helps"
    )
    _restore(model, state)
    return state


def _restore(model: nn.Module, state: State) -> None:
    """Put the kept weights into the model; without any, the untrained ones (B = 0)."""
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if name in state.kept:
                parameter.copy_(state.kept[name])
            elif "lora_B" in name:
                parameter.zero_()
