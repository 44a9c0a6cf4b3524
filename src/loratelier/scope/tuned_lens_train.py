"""Training a tuned lens on a person's own text."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loratelier.base import Base
from loratelier.base.inside import Inside, look_inside, read_out
from loratelier.kit.errors import InputError
from loratelier.kit.progress import task
from loratelier.scope.compare import divergence
from loratelier.scope.tuned_lens import TunedLens

# A text is read in windows of this many tokens, as far as a step's positions may lie apart.
_WINDOW = 256


def train_tuned_lens(
    base: Base,
    texts: Sequence[str],
    *,
    steps: int = 200,
    positions: int = 24,
    learning_rate: float = 1e-2,
    held_out: float = 0.1,
    measured_on: int = 256,
    seed: int = 0,
) -> TunedLens:
    """Train an affine translator for each depth of a base, as it is without any adapter.

    A step reads one window of text and trains all depths at a few random positions of it (Adam,
    rate falling to zero in a straight line). Its cost is that of the model's head, forward and
    back, at layers x positions places; memory is that of the head at ``positions`` places, and of
    layers x d x d numbers with their gradients and Adam's two moments.

    Args:
        base: the base.
        texts: plain texts; the more they are like what the lens will be used on, the better.
        steps: how many windows to learn from.
        positions: how many positions of a window to learn from.
        learning_rate: Adam's first rate, in units of a layer's own size.
        held_out: the share of windows that nothing is learned from, at least one.
        measured_on: at most so many held-out positions are measured.
        seed: for the order of windows and the choice of positions.

    Raises:
        InputError: figures out of range, or too little text to hold any of it out.
    """
    _check(steps, positions, learning_rate, held_out, measured_on)
    learned, kept = _windows(base, texts, held_out)
    chance = torch.Generator().manual_seed(seed)
    first = _read(base, learned[0])
    translators = _Translators(first).to(base.model.device)
    optimiser = torch.optim.Adam(translators.parameters(), lr=learning_rate)
    tokens = 0
    with task("Training the tuned lens", total=steps) as bar:
        for step in range(steps):
            window = learned[int(torch.randint(len(learned), (1,), generator=chance))]
            inside = _read(base, window)
            places = torch.randperm(len(window), generator=chance)[:positions].sort().values
            optimiser.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
            optimiser.zero_grad(set_to_none=True)
            loss = _learn(base, inside, places, translators)
            optimiser.step()
            tokens += len(places)
            bar.say(f"KL {loss:.3f}")
            bar.advance()
    weight, bias = translators.finished()
    plain, tuned, count = _measure(base, kept, weight, bias, measured_on)
    return TunedLens(
        fingerprint=base.fingerprint,
        base=base.name,
        weight=weight.cpu(),
        bias=bias.cpu(),
        plain=plain,
        tuned=tuned,
        tokens=tokens,
        held_out=count,
    )


def _check(
    steps: int, positions: int, learning_rate: float, held_out: float, measured_on: int
) -> None:
    if min(steps, positions, measured_on) < 1:
        raise InputError("steps, positions and measured_on are 1 or more")
    if not 0 < learning_rate < 1:
        raise InputError(f"The learning rate is {learning_rate:g}", "Give one between 0 and 1")
    if not 0 < held_out < 1:
        raise InputError(f"held_out is {held_out:g}", "It is a share between 0 and 1")


def _windows(
    base: Base, texts: Sequence[str], held_out: float
) -> tuple[list[Tensor], list[Tensor]]:
    """Return windows of token ids [T] to learn from, and others, spread evenly, to measure on."""
    windows: list[Tensor] = []
    for text in texts:
        ids = torch.tensor(base.tokenizer(text)["input_ids"], dtype=torch.int64)
        windows.extend(part for part in ids.split(_WINDOW) if len(part) > 1)
    if len(windows) < 2:
        raise InputError(
            f"There is too little text to train a lens on: {len(windows)} stretches of it",
            f"Give two texts or more, or one of more than {_WINDOW} tokens",
        )
    every = max(2, round(1 / held_out))
    kept = windows[every - 1 :: every] or windows[-1:]
    learned = [part for part in windows if not any(part is other for other in kept)]
    return learned, kept


@torch.no_grad()
def _read(base: Base, window: Tensor) -> Inside:
    return look_inside(base.model, window[None].to(base.model.device))


class _Translators(nn.Module):
    """``h + W h + b`` for each depth, with ``b`` counted in the size of the depth's states.

    Depths differ in the size of their states by orders of magnitude; counted so, one learning
    rate is right for all of them.
    """

    def __init__(self, inside: Inside) -> None:
        super().__init__()
        states = torch.stack([state[0].float() for state in inside.states[:-1]])  # [L, T, d]
        depths, _, size = states.shape
        # The median over tokens: a few tokens (the first above all) have states that are huge.
        self.register_buffer("size", states.pow(2).mean(-1).sqrt().median(1).values)
        self.weight = nn.Parameter(torch.zeros(depths, size, size))
        self.bias = nn.Parameter(torch.zeros(depths, size))
        self._spread = size**-0.5

    def one(self, depth: int, states: Tensor) -> Tensor:
        """Return the states of one depth translated."""
        states = states.float()
        moved: Tensor = states @ (self._spread * self.weight[depth]).T
        return states + moved + self._scale(depth) * self.bias[depth]

    def finished(self) -> tuple[Tensor, Tensor]:
        """Return ``W`` [L, d, d] and ``b`` [L, d] as they are applied."""
        bias = torch.stack([self._scale(n) * each for n, each in enumerate(self.bias)])
        return (self._spread * self.weight).detach(), bias.detach()

    def _scale(self, depth: int) -> Tensor:
        size: Tensor = self.get_buffer("size")[depth]
        return size


def _learn(base: Base, inside: Inside, places: Tensor, translators: _Translators) -> float:
    """Add the gradients of one window; return the mean KL over depths, in nats."""
    with torch.no_grad():
        wanted = (
            read_out(base.model, inside, inside.states[-1], places, normed=True)[0]
            .float()
            .softmax(-1)
        )
        entropy = torch.special.entr(wanted).sum(-1).mean()
    total = 0.0
    for depth, states in enumerate(inside.states[:-1]):
        made = translators.one(depth, states).to(states.dtype)
        logits = read_out(base.model, inside, made, places, normed=False)[0].float()
        loss = F.cross_entropy(logits, wanted) - entropy
        loss.backward()
        total += float(loss.detach())
    return total / (len(inside.states) - 1)


@torch.no_grad()
def _measure(
    base: Base, windows: Sequence[Tensor], weight: Tensor, bias: Tensor, most: int
) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Return mean KL(output || lens) at each depth, plain and tuned, and over how many tokens."""
    sums = torch.zeros(2, len(bias), dtype=torch.float64)
    count = 0
    for window in windows:
        places = torch.arange(len(window))[: most - count]
        inside = _read(base, window)
        for part in places.split(32):
            final = read_out(base.model, inside, inside.states[-1], part, normed=True)[0]
            final = final.float().log_softmax(-1)
            for depth, states in enumerate(inside.states[:-1]):
                translated = states + states @ weight[depth].T.to(states) + bias[depth].to(states)
                for row, each in enumerate((states, translated)):
                    logits = read_out(base.model, inside, each, part, normed=False)[0].float()
                    sums[row, depth] += float(divergence(final, logits.log_softmax(-1)).sum())
        count += len(places)
        if count >= most:
            break
    plain, tuned = (sums / count).tolist()
    return tuple(plain), tuple(tuned), count
