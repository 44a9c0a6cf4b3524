"""What is in memory at the moments of a training run, and which of them needs the most."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from loratelier.base.plan.pace import Burden
from loratelier.base.plan.trace import Device, Walked

# What a process takes before it has a model. On a CPU: Python with torch, transformers and PEFT,
# measured (docs/plan.md). On a GPU: its context, the libraries' kernels and their workspaces.
OVERHEAD: Mapping[Device, int] = {"cpu": 520 * 2**20, "cuda": 700 * 2**20}
# What the allocator holds beyond what is in use. A GPU's rounds up: a share of what comes and goes.
# glibc's aligns by taking more, and small things settle in what is left over, so that the place of
# a freed tensor is often too small for another of its size: some of what is held, and of all that
# was ever made in a step, is stranded. The shares are measured (docs/plan.md).
ROUNDED_UP, STRANDED_HELD, STRANDED_MADE = 0.05, 0.17, 0.09
# No run is shared out farther than this.
MOST_GPUS = 1024


@dataclass(frozen=True)
class Held:
    """Bytes that a run holds, in one process, before anything is shared out.

    ``weights``: of the base, as they are in memory; ``packed``: those of them that are in 4 bits,
    with their constants. ``trained``: the trained numbers, and ``adapter`` the bytes of those that
    the base does not have. ``kept``: a copy of what is trained. ``step``: a pack's way there and
    back; ``measured``: its way there alone, with the losses of the drift meter. ``updated``: what
    the optimizer's step takes for a while. ``root`` and ``block``: the weights that FSDP gathers
    at once: those outside of the blocks, and the largest block's.
    """

    weights: int
    packed: int
    adapter: int
    gradients: int
    optimizer: int
    kept: int
    step: Walked
    measured: int
    updated: int
    root: int
    block: int
    trains_weights: bool


@dataclass(frozen=True)
class Moment:
    """A moment of a run, and what is in memory then, by part, in bytes."""

    name: str
    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """All parts together, in bytes."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class MemoryPlan:
    """What a run takes.

    ``tokens``: of the pack that is in memory at once; ``targets``: how many of them are learned.
    ``parameters``: of the base; ``active``: those that a token meets; ``trained``: those that are
    trained. ``moments``: the fullest is what must fit. ``gpus``: over how many the run is shared
    out; the figures are those of one of them. ``burden``: what it costs in time.
    """

    method: str
    dtype: str
    device: Device
    gpus: int
    tokens: int
    targets: int
    parameters: int
    active: int
    trained: int
    moments: tuple[Moment, ...]
    burden: Burden
    held: Held = field(repr=False)

    @property
    def fullest(self) -> Moment:
        """The moment that takes the most."""
        return max(self.moments, key=lambda moment: moment.total)

    @property
    def parts(self) -> Mapping[str, int]:
        """What is in memory at the fullest moment, by part, in bytes."""
        return self.fullest.parts

    @property
    def total(self) -> int:
        """Bytes at the fullest moment."""
        return self.fullest.total

    def over(self, gpus: int) -> "MemoryPlan":
        """Return the plan of the same run shared out over GPUs, each with a pack of its own."""
        return replace(self, gpus=gpus, moments=moments(self.held, self.device, gpus))

    def needed(self, memory: int) -> int | None:
        """Return how many GPUs of so many bytes hold the run; None where no number does."""
        most = self.over(MOST_GPUS) if self.shareable else self.over(1)
        if most.total > memory:
            return None
        low, high = 0, most.gpus
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.over(middle).total <= memory else (middle, high)
        return high

    @property
    def shareable(self) -> bool:
        """Whether FSDP shares the weights out: packed ones it does not."""
        return self.held.packed == 0


def moments(held: Held, device: Device, gpus: int) -> tuple[Moment, ...]:
    """Return what each of several GPUs, or one process, holds at the moments of a run.

    With FSDP weights, gradients and moments are shared out; a block's weights are gathered while it
    is computed, and the next block's beside them; those outside of the blocks stay gathered. What a
    pack makes, and the kept copy, each process has for itself.
    """
    shared = gpus > 1
    gathered = (held.root + 2 * held.block) if shared else 0
    always = {
        "weights": -(-(held.weights - held.packed) // gpus),
        "weights in 4 bits": held.packed,
        "adapter": -(-held.adapter // gpus),
        "gathered weights": gathered,
        "optimizer": -(-held.optimizer // gpus),
        "kept state": held.kept,
    }
    step = held.step
    summed = held.root + held.block if shared and held.trains_weights else 0
    gradients = min(step.gradients, -(-step.gradients // gpus) + summed)
    all_gradients = -(-held.gradients // gpus)
    found = [
        ("the way back", gradients, step.activations, step.passing, _slack(step, device)),
        # What was stranded on the way back is still the allocator's.
        ("the update", all_gradients, 0, -(-held.updated // gpus), _slack(step, device)),
        ("measuring", 0, 0, held.measured, _slack(step, device)),
    ]
    return tuple(
        Moment(
            name,
            always
            | {
                "gradients": slope,
                "activations": saved,
                "passing": passing,
                "allocator": slack,
                "framework": OVERHEAD[device],
            },
        )
        for name, slope, saved, passing, slack in found
    )


def _slack(walked: Walked, device: Device) -> int:
    if device == "cpu":
        return round(STRANDED_HELD * walked.heaped + STRANDED_MADE * walked.churned)
    return round(ROUNDED_UP * walked.total)
