"""How the next token is chosen."""

from dataclasses import dataclass

import torch
from torch import Tensor

from loratelier.kit.errors import InputError
from loratelier.scope.decode import Choose


@dataclass(frozen=True)
class Sampling:
    """The settings of a reply.

    ``temperature`` 0 is greedy: the likeliest token every time. ``top_p`` keeps the likeliest
    tokens that together have that probability. ``repetition_penalty`` above 1 makes tokens less
    likely that this very reply holds already; what the person said and earlier replies stay free.
    ``seed`` None draws anew each time.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    repetition_penalty: float = 1.1
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 5:
            raise InputError(
                f"The temperature is {self.temperature:g}", "It is a number from 0 (greedy) to 5"
            )
        if not 0 < self.top_p <= 1:
            raise InputError(f"top-p is {self.top_p:g}", "It is above 0 and at most 1")
        if not 0.5 <= self.repetition_penalty <= 3:
            raise InputError(
                f"The repetition penalty is {self.repetition_penalty:g}",
                "It is a number from 0.5 to 3; 1 is none",
            )


def chooser(sampling: Sampling) -> Choose:
    """Return the function that chooses tokens; its random numbers go on from reply to reply."""
    from transformers import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopPLogitsWarper,
    )

    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    steps = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty)))
    greedy = sampling.temperature == 0
    if not greedy:
        steps.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if not greedy and sampling.top_p < 1:
        steps.append(TopPLogitsWarper(float(sampling.top_p)))

    def choose(scores: Tensor, written: Tensor) -> Tensor:
        ready: Tensor = steps(written, scores)
        if greedy:
            return ready.argmax(dim=-1)
        # On the CPU, so that a seed gives the same words on every device as far as scores agree.
        return torch.multinomial(ready.softmax(dim=-1).cpu(), 1, generator=generator)[:, 0]

    return choose
