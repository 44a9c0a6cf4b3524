"""At what strength the kept state is worn: a gate between 0 and 1 that keeps within the budget.

Along the way from the base to a trained state the loss on its rows falls fast at first, while
general text suffers late (interpolation of weights: WiSE-FT, arXiv:2109.01903; for an adapter it is
its scaling). So a state that went too far, worn at less, is often better than an early one.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from accelerate.utils import broadcast_object_list
from peft.tuners.lora import LoraLayer

from loratelier.base.layers import modules_of
from loratelier.kit.progress import remark
from loratelier.train.drift import Drift
from loratelier.train.loop import Point, Run, State, held_out_figures, restore
from loratelier.train.measure import change

T = TypeVar("T")
# Strengths that are tried are multiples of 1 / 16: four measurements find the greatest allowed.
PARTS = 16


def settle(work: Run, state: State) -> None:
    """Choose between the kept state and a weaker one of the state that went too far.

    On return the model holds the chosen weights at full strength, and ``state.kept_point`` says
    what they are at the strength at which they are to be worn.

    Args:
        work: a run that has ended; its budget is on.
        state: what it reached; ``kept``, ``kept_step`` and ``worn`` may change.
    """
    budget = work.recipe.guards.drift_budget
    if not work.recipe.guards.weakens or not state.far or budget is None:
        return
    weaker = _within(work, state, budget)
    kept = state.kept_point
    if weaker is None:
        remark(f"At no strength is the drift within the budget of {budget:.1%}")
    elif kept.drift > budget or _learned_more(weaker, kept):
        remark(_sentence(weaker, kept))
        state.kept, state.kept_step, state.worn = state.far, state.far_step, weaker
    restore(work, state)


def wear(peft: Any, strength: float) -> None:
    """Make ``strength`` the adapter's own: every alpha is multiplied by it."""
    for config in peft.peft_config.values():
        config.lora_alpha *= strength
        config.alpha_pattern = {k: alpha * strength for k, alpha in config.alpha_pattern.items()}
    for layer in modules_of(peft, LoraLayer).values():
        layer.scale_layer(strength)


def _within(work: Run, state: State, budget: float) -> Point | None:
    """Return the far state at the greatest strength that keeps within the budget, if any does."""
    restore(work, replace(state, kept=state.far))
    work.learner.eval()
    base = state.curve[0].general_bpb
    low, high = 0, PARTS
    found: Drift | None = None
    while high - low > 1:
        middle = (low + high) // 2
        drift = _at(work, middle / PARTS, work.meter.measure)
        if change(base, drift.bpb) <= budget:
            low, found = middle, drift
        else:
            high = middle
    held = _at(work, low / PARTS, lambda: held_out_figures(work)) if found else {}
    work.learner.train()
    if found is None:
        return None
    return replace(
        state.point(state.far_step),
        strength=low / PARTS,
        held_out_nll=held.pop("nll", None),
        held_out=held,
        general_bpb=found.bpb,
        general_kl=found.kl,
        drift=change(base, found.bpb),
    )


def _at(work: Run, strength: float, measure: Callable[[], T]) -> T:
    """Measure at a strength; what one process measured decides for all."""
    with work.learner.at_strength(strength):
        agreed: list[T] = broadcast_object_list([measure()])
    return agreed[0]


def _learned_more(new: Point, old: Point) -> bool:
    if new.held_out_loss is None or old.held_out_loss is None:
        return False
    return new.held_out_loss < old.held_out_loss


def _sentence(new: Point, old: Point) -> str:
    parts = [f"The state of step {new.step} is kept, worn at strength {new.strength:.4g}"]
    if new.held_out_loss is not None and old.held_out_loss is not None:
        parts.append(
            f"held-out loss {new.held_out_loss:.3f} (step {old.step}: {old.held_out_loss:.3f})"
        )
    parts.append(f"general text {new.drift:+.2%}")
    return ", ".join(parts)
