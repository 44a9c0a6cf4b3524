"""The names of a model's linear layers in their order: where an adapter could sit."""

from collections import Counter
from dataclasses import dataclass

from loratelier.base.base import Base
from loratelier.base.layers import ends, layers


@dataclass(frozen=True)
class Outline:
    """A model as a plan to draw on.

    ``blocks`` is how many layers it has. ``modules`` are the linear layers of a block, in the order
    in which the model holds them, by their path in it (``self_attn.q_proj``; the experts of a
    mixture share one); ``labels`` are the shortest names that keep them apart. ``held`` are the
    places (block, module) that there are, and ``ends`` the embedding and the output layer.
    """

    blocks: int
    modules: tuple[str, ...]
    labels: tuple[str, ...]
    held: frozenset[tuple[int, str]]
    ends: tuple[str, ...]


def outline(base: Base) -> Outline:
    """Return the plan of a base's model."""
    places = [place for name in layers(base.model) if (place := place_of(name)) is not None]
    modules = tuple(dict.fromkeys(module for _, module in places))
    return Outline(
        blocks=max((block + 1 for block, _ in places), default=0),
        modules=modules,
        labels=labels_of(modules),
        held=frozenset(places),
        ends=tuple(sorted(ends(base.model))),
    )


def place_of(site: str) -> tuple[int, str] | None:
    """Return the number of a site's block and its path in it; None for one that is in no block."""
    parts = site.split(".")
    at = next((number for number, part in enumerate(parts) if part.isdigit()), None)
    if at is None:
        return None
    return int(parts[at]), ".".join(part for part in parts[at + 1 :] if not part.isdigit())


def labels_of(modules: tuple[str, ...]) -> tuple[str, ...]:
    """Return the last names of modules, or their paths where a last name is not one's own."""
    last = [module.rpartition(".")[2] for module in modules]
    count = Counter(last)
    return tuple(
        name if count[name] == 1 else path for name, path in zip(last, modules, strict=True)
    )
