"""How a run is going, in one line: losses, drift, speed, share of the machine's peak."""

from collections import deque
from typing import TYPE_CHECKING

import torch

from loratelier.base.fastest import product_rate
from loratelier.base.work import Work

if TYPE_CHECKING:
    from loratelier.train.loop import State
    from loratelier.train.steps import Step

# Speed is that of the last steps: the first ones warm up, and a laptop slows down when it is hot.
WINDOW = 20


class Watch:
    """Says how a run is going.

    ``peak`` is the floating-point operations a second of the machine's matrix product, measured
    when the run begins, or None where nobody asked for it.
    """

    def __init__(self, work: Work, peak: float | None) -> None:
        self._work = work
        self._peak = peak
        self._last: deque[tuple[Step, float]] = deque(maxlen=WINDOW)

    def say(self, state: "State", step: "Step", seconds: float) -> str:
        """Return the line after a step that took ``seconds``."""
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
