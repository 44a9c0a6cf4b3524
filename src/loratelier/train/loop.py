"""The training loop, read top to bottom.

One step of the optimizer reads the packs that the plan gives it and follows the sum of their
weighted losses. Now and then the held-out rows and general text are measured; the best state
within the drift budget is kept.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from loratelier.kit.progress import Bar, remark, task
from loratelier.train.drift import DriftMeter
from loratelier.train.journal import Journal
from loratelier.train.learner import Learner
from loratelier.train.measure import change
from loratelier.train.objective import Objective
from loratelier.train.packing import Pack
from loratelier.train.recipe import Recipe
from loratelier.train.steps import Step, share
from loratelier.train.watch import Watch

if TYPE_CHECKING:
    from loratelier.train.whole import Whole

# The learning rate rises over the first 5% of the steps and falls along a cosine to 10%.
WARM_UP, FLOOR = 0.05, 0.1
# Divergence: the mean loss of this many steps is above the first steps' by this factor and margin.
WINDOW, FACTOR, MARGIN = 8, 1.5, 1.0


@dataclass(frozen=True)
class Point:
    """One evaluation: what the state of ``step`` is worth and what it costs.

    ``train_loss``: the objective's, the mean since the last evaluation. ``held_out_nll``: nats per
    learned token, where the objective measures that. ``held_out``: what else it measures there.
    """

    step: int
    epoch: int
    train_loss: float | None
    held_out_nll: float | None
    general_bpb: float
    general_kl: float | None  # nats per token, from the base
    drift: float  # relative rise of general_bpb over the base's
    held_out: dict[str, float] = field(default_factory=dict)
    strength: float = 1.0  # what the adapter's update was multiplied by

    @property
    def held_out_loss(self) -> float | None:
        """What the kept state is chosen by; None without held-out rows."""
        return self.held_out.get("loss", self.held_out_nll)

    @property
    def figures(self) -> dict[str, float]:
        """Everything that was measured on held-out rows."""
        nll = {} if self.held_out_nll is None else {"nll": self.held_out_nll}
        return nll | self.held_out


@dataclass
class State:
    """Everything that a stopped run needs to go on as if it had not stopped.

    ``kept`` are the trainable tensors of the best evaluation so far, by parameter name, and before
    the first those that training begins with; ``far`` those of the best held-out loss where its
    drift is beyond the budget, which may be worn at less than full strength. ``losses`` is the
    training loss of every step so far. ``worn`` is what the kept weights are at the strength at
    which they are worn, where that is not 1.
    """

    step: int = 0
    curve: list[Point] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    kept_step: int = 0
    far: dict[str, Tensor] = field(default_factory=dict)
    far_step: int = 0
    waited: int = 0  # evaluations since the last better one
    tokens: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    worn: Point | None = None

    @property
    def kept_point(self) -> Point:
        """The evaluation of the kept weights; of those that training began with without any."""
        return self.worn or self.point(self.kept_step)

    def point(self, step: int) -> Point:
        """Return the evaluation of the state of a step, at full strength."""
        return next(point for point in reversed(self.curve) if point.step == step)

    @property
    def since_evaluation(self) -> list[float]:
        """The losses of the steps after the last evaluation."""
        return self.losses[self.curve[-1].step :]


@dataclass(frozen=True)
class Plan:
    """What a run goes through: the steps of every epoch, in order, and what it is measured on.

    ``guarded``: what the guards did to the rows, for the card and for a resumed run.
    """

    epochs: Sequence[Sequence[Step]]
    held_out: Sequence[Pack]
    guarded: Mapping[str, Any] = field(default_factory=dict)

    def steps(self, recipe: Recipe) -> int:
        """How many steps the run takes if nothing stops it."""
        planned = sum(len(steps) for steps in self.epochs)
        return min(planned, recipe.max_steps or planned)

    def ends(self) -> dict[int, int]:
        """Return the epoch that ends with a step, by the step's number from 1."""
        found, done = {}, 0
        for epoch, steps in enumerate(self.epochs, start=1):
            done += len(steps)
            found[done] = epoch
        return found


@dataclass(frozen=True)
class Run:
    """What a run works with; none of it changes but the weights and the optimizer's state.

    ``learner`` is the module itself, ``prepared`` what accelerate made of it for several
    processes (the same where there is one). ``objective`` is what the run is after. ``save``
    writes the state; ``told`` hears every step, and ``watch`` says how it is going. ``whole`` is
    there where the base itself is trained.
    """

    learner: Learner
    prepared: Any
    optimizer: Any
    accelerator: Accelerator
    recipe: Recipe
    objective: Objective[Any]
    plan: Plan
    meter: DriftMeter
    save: Callable[[State], None]
    told: Journal
    watch: Watch
    whole: "Whole | None" = None


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that training changes, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that may be shared out over processes; all of them must ask."""
    plain = tensor.detach()
    return plain.full_tensor() if isinstance(plain, DTensor) else plain


def gathered(model: nn.Module) -> dict[str, Tensor] | None:
    """Return the trained weights where they are shared out over processes; None where not."""
    trained = trainable(model)
    if not any(isinstance(p.detach(), DTensor) for p in trained.values()):
        return None
    return {name: whole(p) for name, p in trained.items()}


def as_part_of(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Share ``tensor`` out over processes as ``parameter`` is."""
    there = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return there
    return distribute_tensor(there, parameter.device_mesh, parameter.placements)


def run(work: Run, state: State) -> State:
    """Train from ``state`` on; on return the model holds the kept weights.

    Args:
        work: the model, the optimizer in the state that belongs to ``state``, the plan.
        state: where to begin; a fresh one, or what a stopped run saved.
    """
    recipe, plan = work.recipe, work.plan
    total, ends = plan.steps(recipe), plan.ends()
    steps = [step for epoch in plan.epochs for step in epoch][:total]
    due = [_is_due(recipe, step + 1, total, ends) for step in range(total)]
    work.watch.begins(steps, due, state.step)
    if not state.curve:
        state.curve.append(_evaluate(work, state, 0))
        if work.whole is None:
            state.kept = _copied(work.learner)
    if state.step == 0 and work.whole is not None and work.whole.draws:
        work.whole.begin()
        state.curve[1:] = [_evaluate(work, state, 0)]
    if state.step == 0:
        work.save(state)
    saved = perf_counter()
    work.watch.evaluated()
    with task("Training", total=total) as bar:
        bar.advance(state.step)
        while state.step < total:
            if state.waited >= recipe.patience:
                remark(f"Stopped: {state.waited} evaluations without a better one")
                break
            problem = _step(work, steps[state.step], state, total, bar)
            if problem:
                return _diverged(work, state, problem)
            if _is_due(recipe, state.step, total, ends):
                epoch = next(number for end, number in ends.items() if state.step <= end)
                _keep(work, state, _evaluate(work, state, epoch))
                work.told.point(state.curve[-1])
                work.save(state)
                saved = perf_counter()
                work.watch.evaluated()
            elif _agreed(work, perf_counter() - saved >= recipe.save_seconds):
                work.save(state)
                saved = perf_counter()
    restore(work, state)
    return state


def _agreed(work: Run, wish: bool) -> bool:
    """Return the first process' wish: clocks differ, and what all must do, all do at once."""
    if work.accelerator.num_processes == 1:
        return wish
    return bool(broadcast_object_list([wish])[0])


def _is_due(recipe: Recipe, step: int, total: int, ends: dict[int, int]) -> bool:
    """Whether the state after ``step`` steps is measured."""
    every = recipe.evaluate_every
    return step in ends or step == total or (every is not None and step % every == 0)


def _step(work: Run, step: Step, state: State, total: int, bar: Bar) -> str | None:
    """Take one step; return what went wrong if its loss or its gradient is no number."""
    began = perf_counter()
    rate = schedule(state.step, total)
    for group in work.optimizer.param_groups:
        group["lr"] = group["base_lr"] * rate
    loss = _gradients(work, step, state.step)
    norm = _clip(work)
    if not math.isfinite(loss) or not math.isfinite(norm):
        work.optimizer.zero_grad(set_to_none=True)
        return (
            "The loss is no longer a number"
            if not math.isfinite(loss)
            else ("The gradient is no longer a number")
        )
    work.optimizer.step()
    work.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    state.tokens += step.tokens
    taken = perf_counter() - began
    state.seconds += taken
    state.losses.append(loss)
    work.told.step(state, step, work.recipe.learning_rate * rate)
    bar.advance()
    bar.say(work.watch.say(state, step, taken), work.watch.left)
    return "The loss has run away" if _ran_away(state.losses) else None


def _gradients(work: Run, step: Step, number: int) -> float:
    """Add up the gradients of a step's packs, over all processes; return the loss."""
    accelerator = work.accelerator
    # Dropout, where there is any, is drawn anew from the step's own number: a run that was stopped
    # goes on with the same draws without keeping a generator's state.
    torch.manual_seed(hash((work.recipe.seed, number, accelerator.process_index)) % 2**63)
    packs = share(step, accelerator.process_index, accelerator.num_processes)
    loss = torch.zeros((), device=accelerator.device)
    for last, pack in ((pack is packs[-1], pack) for pack in packs):
        # Gradients are exchanged once a step, with its last pack.
        waiting = nullcontext() if last else accelerator.no_sync(work.prepared)
        with waiting:
            part = work.prepared(_loss, work.objective, pack.to(accelerator.device))
            # Processes' gradients are averaged; their sum is what is meant.
            accelerator.backward(part * accelerator.num_processes)
        loss += part.detach()
    return float(accelerator.reduce(loss, reduction="sum"))


def _loss(learner: Learner, objective: Objective[Any], pack: Pack) -> Tensor:
    return objective.loss(learner, pack)


def _clip(work: Run) -> float:
    norm = work.accelerator.clip_grad_norm_(trainable(work.learner).values(), 1.0)
    return float(whole(norm)) if norm is not None else 0.0


def schedule(step: int, total: int) -> float:
    """Return the share of the learning rate that step number ``step`` (from 0) uses."""
    warm = max(1, round(total * WARM_UP))
    if step < warm:
        return (step + 1) / warm
    along = (step - warm) / max(1, total - warm)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * along))


def _ran_away(losses: Sequence[float]) -> bool:
    if len(losses) < 2 * WINDOW:
        return False
    first, last = sum(losses[:WINDOW]) / WINDOW, sum(losses[-WINDOW:]) / WINDOW
    return last > FACTOR * first + MARGIN


def _evaluate(work: Run, state: State, epoch: int) -> Point:
    work.learner.eval()
    figures, drift = held_out_figures(work), work.meter.measure()
    work.learner.train()
    before = state.curve[0].general_bpb if state.curve else drift.bpb
    since = state.since_evaluation if state.curve else []
    point = Point(
        step=state.step,
        epoch=epoch,
        train_loss=sum(since) / len(since) if since else None,
        held_out_nll=figures.pop("nll", None),
        general_bpb=drift.bpb,
        general_kl=drift.kl,
        drift=change(before, drift.bpb),
        held_out=figures,
    )
    # What one process measured decides for all: a last digit that differs must not part them.
    agreed: list[Point] = broadcast_object_list([point])
    remark(_sentence(agreed[0], state.curve[0] if state.curve else None, work.objective))
    return agreed[0]


def held_out_figures(work: Run) -> dict[str, float]:
    """Measure the held-out rows under the learner as it is; nothing where there are none."""
    device, rows = work.accelerator.device, work.plan.held_out
    return dict(work.objective.measure(work.prepared, rows, device)) if rows else {}


def _sentence(point: Point, base: Point | None, objective: Objective[Any]) -> str:
    where = f"Epoch {point.epoch}, step {point.step}" if point.step else "Weights drawn anew"
    parts = ["The base" if base is None else where]
    if point.train_loss is not None:
        parts.append(f"training loss {point.train_loss:.3f}")
    if point.figures:
        parts += objective.say(point.figures, base.figures if base is not None else None)
    drift = "" if base is None else f" ({point.drift:+.2%})"
    parts.append(f"general text {point.general_bpb:.4f} bits per byte{drift}")
    if base is not None and point.general_kl is not None:
        parts.append(f"KL {point.general_kl:.4f}")
    return f"{parts[0]}: {', '.join(parts[1:])}"


def _keep(work: Run, state: State, point: Point) -> None:
    """Add the point to the curve and keep the weights if it is the best so far."""
    first = state.kept_step == 0
    guards = work.recipe.guards
    better = first or _better(point, state.kept_point, guards.drift_budget)
    # A model that is trained as a whole has no gate that could be half open.
    weakens = guards.weakens and work.whole is None
    farther = weakens and _beyond(point, state, guards.drift_budget)
    state.curve.append(point)
    if better:
        state.kept, state.kept_step = _copied(work.learner), point.step
    if farther:
        state.far, state.far_step = _copied(work.learner), point.step
    state.waited = 0 if better or farther else state.waited + 1


def _beyond(new: Point, state: State, budget: float | None) -> bool:
    """Say whether ``new`` learned more than all before, at the price of too much drift."""
    if budget is None or new.drift <= budget:
        return False
    return not state.far or _better(new, state.point(state.far_step), None)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: whole(p).clone() for name, p in trainable(model).items()}


def _better(new: Point, old: Point, budget: float | None) -> bool:
    """Say whether ``new`` is to be kept rather than ``old``: within budget first, then the loss.

    Where neither is within the budget, the one that drifted less is better. Without held-out rows
    there is nothing to choose by, and the later state is taken.
    """
    if budget is not None and (new.drift > budget or old.drift > budget):
        return new.drift <= budget or new.drift < old.drift
    if new.held_out_loss is None or old.held_out_loss is None:
        return True
    return new.held_out_loss < old.held_out_loss


def _diverged(work: Run, state: State, problem: str) -> State:
    remark(
        f"{problem} at step {state.step}; the state of step {state.kept_step} is kept. "
        "A lower learning_rate helps"
    )
    restore(work, state)
    return state


def restore(work: Run, state: State) -> None:
    """Put the kept weights into the model; those of step 0 where nothing was better."""
    if not state.kept and work.whole is not None:
        work.whole.begin()
        return
    with torch.no_grad():
        for name, parameter in trainable(work.learner).items():
            parameter.copy_(as_part_of(parameter, state.kept[name]))
