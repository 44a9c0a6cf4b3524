"""The learned router: a low-rank softmax over the base's own hidden states.

    p = softmax((U V (x - mean) / scale + b) / T)      V [r, hidden], U [classes, r]

where x is the mean last hidden state of the request. The classes are the adapters and general
requests, so that abstention is learned too. U, V and b are fitted on the adapters' corpora by full
steps of AdamW in seconds; T afterwards on held-out rows (temperature scaling, arXiv 1706.04599).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from loratelier.base import Base
from loratelier.base.decoder import hidden_states
from loratelier.corpus.score.likeness import Vectors, raw_hidden
from loratelier.kit.errors import InputError
from loratelier.kit.files import atomic_folder
from loratelier.kit.models import Strict, problem
from loratelier.kit.progress import task
from loratelier.route.requests import Asked, general_requests
from loratelier.route.sense import BASE

FILE, TENSORS = "router.json", "router.safetensors"
_STEPS = 300
_RATE = 2e-2
_DECAY = 1e-2
_TEMPERATURES = tuple(float(t) for t in np.geomspace(0.1, 10, 41))


class Facts(Strict):
    """What ``router.json`` holds.

    ``learned`` and ``held`` count rows by class; ``accuracy`` is of the held-out ones, None without
    any; ``digests`` are of the requests that each class was learned from.
    """

    version: Literal[1] = 1
    fingerprint: str
    base: str
    names: tuple[str, ...]
    rank: int
    parameters: int
    seed: int
    temperature: float
    accuracy: float | None
    learned: dict[str, int]
    held: dict[str, int]
    digests: dict[str, str]


@dataclass(frozen=True)
class LowRank:
    """A trained router; see the head of this file for the formula. All float32."""

    facts: Facts
    mean: Tensor
    scale: Tensor
    down: Tensor
    up: Tensor
    bias: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, the last of them :data:`~loratelier.route.sense.BASE`."""
        return self.facts.names

    def logits(self, states: Tensor) -> Tensor:
        """Return what the softmax is taken of: [..., hidden] to [..., classes]."""
        reduced = (states - self.mean) / self.scale @ self.down.T
        return (reduced @ self.up.T + self.bias) / self.facts.temperature

    def save(self, folder: Path, *, replace: bool = False) -> None:
        """Write the router's folder, whole or not at all.

        Raises:
            InputError: it exists and ``replace`` is false, or is a folder of something else.
        """
        held = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        if held and FILE not in held:
            raise InputError(f"{folder} is no router and would be deleted", "Name another folder")
        with atomic_folder(folder, replace=replace) as scratch:
            tensors = {name: getattr(self, name) for name in _TENSORS}
            save_file({n: t.contiguous() for n, t in tensors.items()}, scratch / TENSORS)
            (scratch / FILE).write_text(self.facts.model_dump_json(indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "LowRank":
        """Read a router's folder.

        Raises:
            InputError: it is missing or damaged.
        """
        try:
            facts = Facts.model_validate_json((folder / FILE).read_bytes())
            tensors = load_file(folder / TENSORS)
            router = cls(facts, *(tensors[name] for name in _TENSORS))
            router._require_whole()
        except OSError as error:
            raise InputError(
                f"There is no router in {folder}", "Make it with: loratelier route train"
            ) from error
        except ValidationError as error:
            raise InputError(f"{folder / FILE}: {problem(error)}") from error
        except (SafetensorError, KeyError) as error:
            raise InputError(f"{folder / TENSORS} is damaged", "Train the router anew") from error
        return router

    def _require_whole(self) -> None:
        classes, rank, hidden = len(self.names), self.facts.rank, self.mean.numel()
        shapes = {"scale": (), "down": (rank, hidden), "up": (classes, rank), "bias": (classes,)}
        for name, shape in shapes.items():
            tensor = getattr(self, name)
            if tuple(tensor.shape) != shape or not bool(torch.isfinite(tensor).all()):
                raise KeyError(name)

    def require_base(self, base: Base) -> None:
        """Make sure that the router was made for this base.

        Raises:
            InputError: it was made for other weights.
        """
        if self.facts.fingerprint != base.fingerprint:
            raise InputError(
                f"The router was trained on the hidden states of {self.facts.base}, not of "
                f"{base.name}",
                "Make one for this base with: loratelier route train",
            )


_TENSORS = ("mean", "scale", "down", "up", "bias")


def train_router(
    base: Base, asked: Mapping[str, Asked], *, rank: int = 8, seed: int = 0
) -> LowRank:
    """Fit a router to what each adapter is asked; see the head of this file.

    Args:
        base: its hidden states are read; it is left as it was.
        asked: what each adapter is asked.
        rank: r; at most the number of classes is used.
        seed: of U and V.

    Raises:
        InputError: a rank below 1, or no adapter with rows.
    """
    if rank < 1:
        raise InputError(f"The rank is {rank}", "It is 1 or more")
    if not asked:
        raise InputError("No adapter of the policy has a corpus", "Give one with 'corpus:'")
    names = (*asked, BASE)
    learned = {**{n: each.learned for n, each in asked.items()}, BASE: _general(held=False)}
    held = {**{n: each.held for n, each in asked.items()}, BASE: _general(held=True)}
    states, labels = _states(base, names, learned)
    held_states, held_labels = _states(base, names, held)
    mean = states.mean(0)
    scale = (states - mean).pow(2).mean().sqrt().clamp_min(1e-6)
    used = min(rank, len(names))
    down, up, bias = _fit((states - mean) / scale, labels, len(names), used, seed)
    scores = ((held_states - mean) / scale) @ down.T @ up.T + bias
    right = scores.argmax(-1) == held_labels
    facts = Facts(
        fingerprint=base.fingerprint,
        base=base.name,
        names=names,
        rank=used,
        parameters=down.numel() + up.numel() + bias.numel(),
        seed=seed,
        temperature=_temperature(scores, held_labels),
        accuracy=float(right.float().mean()) if len(right) else None,
        learned={name: len(learned[name]) for name in names},
        held={name: len(held[name]) for name in names},
        digests={name: each.digest for name, each in asked.items()},
    )
    return LowRank(facts, mean, scale, down, up, bias)


def _general(*, held: bool) -> tuple[str, ...]:
    return tuple(general_requests(held=held))


def _states(
    base: Base, names: tuple[str, ...], texts: Mapping[str, tuple[str, ...]]
) -> tuple[Tensor, Tensor]:
    """Return the mean hidden state of every text, and the number of its class."""
    flat = [text for name in names for text in texts[name]]
    labels = [number for number, name in enumerate(names) for _ in texts[name]]
    return torch.from_numpy(raw_hidden(base, flat)), torch.tensor(labels, dtype=torch.long)


def _fit(
    states: Tensor, labels: Tensor, classes: int, rank: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    hidden = states.shape[1]
    down = torch.randn(rank, hidden, generator=chance) / hidden**0.5
    up = torch.randn(classes, rank, generator=chance) / rank**0.5
    bias = torch.zeros(classes)
    parameters = [each.requires_grad_() for each in (down, up, bias)]
    # A class with few rows counts as much as one with many.
    counts = torch.bincount(labels, minlength=classes).clamp_min(1).float()
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)
    with task("Training the router, steps", total=_STEPS) as bar:
        for step in range(_STEPS):
            for group in optimizer.param_groups:
                group["lr"] = _RATE * (1 - step / _STEPS)
            loss = F.cross_entropy(
                states @ down.T @ up.T + bias, labels, 1 / counts, label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.advance()
    return down.detach(), up.detach(), bias.detach()


def _temperature(scores: Tensor, labels: Tensor) -> float:
    """Return the temperature with the least cross-entropy on held-out rows; 1 without any."""
    if not len(labels):
        return 1.0
    losses = {t: float(F.cross_entropy(scores / t, labels)) for t in _TEMPERATURES}
    return min(losses, key=lambda temperature: losses[temperature])


def request_state(base: Base, text: str) -> Vectors:
    """Return what the stages by hidden states read of a request: its mean last state, [hidden]."""
    state: Vectors = raw_hidden(base, [text])[0]
    return state


@torch.no_grad()
def token_shares(router: LowRank, base: Base, ids: Tensor) -> dict[str, Tensor]:
    """Return each adapter's share at every token of a text, for gates by token.

    A token's share comes from the mean state of the text up to it, so that it depends on nothing
    that follows; the last one is the share of the whole text. What the shares lack of 1 is the
    base's.

    Args:
        router: made for this base.
        base: reads the text once more, bare.
        ids: the text, [tokens].

    Returns:
        adapter -> float32 [tokens], as a gate of ``AdapterBank.activate`` may be.

    Raises:
        InputError: the router was made for another base.
    """
    router.require_base(base)
    states = hidden_states(base.model, ids[None].to(base.device))[0].float().cpu()
    means = states.cumsum(0) / torch.arange(1, len(states) + 1)[:, None]
    shares = router.logits(means).softmax(-1)
    pairs = enumerate(router.names)
    return {name: shares[:, number].contiguous() for number, name in pairs if name != BASE}
