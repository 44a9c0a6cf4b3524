"""How a run is going, in one line: losses, drift, speed, share of the machine's peak."""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from loratelier.base.fastest import product_rate
from loratelier.base.work import Work
from loratelier.train.clock import WINDOW, Clock

if TYPE_CHECKING:
    from loratelier.train.loop import State
    from loratelier.train.steps import Step


class Watch:
    """Says how a run is going.

    ``left`` are the seconds until the last step and its evaluation, None before the first step.
    ``peak`` is the floating-point operations a second of the machine's matrix product, measured
    when the run begins, or None where nobody asked for it.
    """

    def __init__(self, work: Work, peak: float | None) -> None:
        self._work = work
        self._peak = peak
        self._last: deque[tuple[Step, float]] = deque(maxlen=WINDOW)
        self._clock = Clock([], [])
        self.left: float | None = None

    def begins(self, steps: "Sequence[Step]", due: Sequence[bool], done: int) -> None:
        """Hear what the run goes through.

        Args:
            steps: all of them.
            due: whether an evaluation follows each.
            done: how many were taken before, by a run that was stopped.
        """
        work = [self._work.of(step.tokens, step.targets) for step in steps]
        self._clock = Clock(work, due, done)

    def evaluated(self) -> None:
        """Hear that an evaluation has ended, and what is saved after it."""
        self._clock.evaluated()

    def say(self, state: "State", step: "Step", seconds: float) -> str:
        """Return the line after a step that took ``seconds``; ``left`` is then what is left."""
        self.left = self._clock.stepped()
        self._last.append((step, seconds))
        spent = sum(each for _, each in self._last)
        parts = [f"loss {state.losses[-1]:.3f}"]
        now = state.curve[-1]
        if self._peak is not None:
            if now.held_out_loss is not None:
                parts.append(f"held-out {now.held_out_loss:.3f}")
            parts.append(f"drift {now.drift:+.2%}")
        parts.append(f"{sum(each.tokens for each, _ in self._last) / spent:,.0f} tokens/s")
        if self._peak is not None:
            done = sum(self._work.of(each.tokens, each.targets) for each, _ in self._last)
            parts.append(f"{done / spent / self._peak:.0%} of this machine's peak")
        return ", ".join(parts)


def measured_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Return the machine's rate on square matrix products, in operations a second."""
    size = 1024 if device.type == "cpu" else 8192
    return product_rate(dtype, device, size)
