"""The dtype in which a machine multiplies matrices best, found by trying."""

from dataclasses import dataclass
from time import perf_counter

import torch

SIZE, TRIES, SECONDS = 256, 8, 0.1
# fp32 is exact; a smaller type must be this much faster to be worth its rounding.
WORTH = 1.5


@dataclass(frozen=True)
class Choice:
    """A dtype, and the sentence that says why."""

    dtype: torch.dtype
    reason: str


def fastest_dtype(device: torch.device) -> Choice:
    """Return the dtype to train in on a device: float32, or bfloat16 where that pays.

    On a CPU both are tried (a tenth of a second); on a GPU the chip decides.
    """
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Choice(torch.bfloat16, "bfloat16: this GPU computes it natively")
        return Choice(torch.float32, "float32: this GPU has no native bfloat16")
    rates = {kind: product_rate(kind, device) for kind in (torch.float32, torch.bfloat16)}
    full, half = rates[torch.float32] / 1e9, rates[torch.bfloat16] / 1e9
    measured = f"{full:,.0f} GFLOP/s in float32 and {half:,.0f} in bfloat16 were measured here"
    if half > WORTH * full:
        return Choice(torch.bfloat16, f"bfloat16: {measured}")
    return Choice(torch.float32, f"float32: {measured}")


def product_rate(dtype: torch.dtype, device: torch.device, size: int = SIZE) -> float:
    """Return the floating-point operations a second of a square matrix product."""
    one = torch.randn(size, size, device=device).to(dtype)
    best, spent = 0.0, 0.0
    for _ in range(TRIES):
        _wait(device)
        began = perf_counter()
        one @ one
        _wait(device)
        took = perf_counter() - began
        best, spent = max(best, 2 * size**3 / took), spent + took
        # A type that is emulated may be a hundred times slower; once is enough to see that.
        if spent > SECONDS:
            break
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
