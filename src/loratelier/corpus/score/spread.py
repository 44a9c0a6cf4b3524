"""Scoring on an engine: groups of passages, each read by a base that a worker loads for itself."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from loratelier.base import Base, load_base
from loratelier.corpus.engine import Engine
from loratelier.corpus.score.forward import losses_of
from loratelier.corpus.score.layout import Passage
from loratelier.corpus.score.metrics import Losses
from loratelier.kit.errors import InputError

# Tokens of a group: enough to batch well, few enough that a stopped run loses little.
GROUP = 16_384


def spread(
    engine: Engine, base: Base, missing: Mapping[bytes, Passage]
) -> Iterator[dict[bytes, Losses]]:
    """Yield what the base says of passages, group by group.

    Args:
        engine: where; its workers load the base by its spec, and it must be the same there.
        base: as it is here.
        missing: passages by key.

    Raises:
        InputError: a worker finds another base under that spec.
    """
    keys = sorted(missing, key=lambda key: (-missing[key].cost, key))
    groups = list(_groups(keys, missing))
    passages = [[missing[key] for key in group] for group in groups]
    dtype = str(base.dtype).removeprefix("torch.")
    make = partial(_reader, base.spec, base.fingerprint, dtype, base.quantization)
    for group, losses in zip(groups, engine.map(make, passages), strict=True):
        yield dict(zip(group, losses, strict=True))


def _groups(keys: Sequence[bytes], missing: Mapping[bytes, Passage]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size = 0
    for key in keys:
        group.append(key)
        size += missing[key].cost
        if size >= GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _reader(
    spec: str, fingerprint: str, dtype: str, quantization: str | None
) -> Callable[[Sequence[Passage]], list[Losses]]:
    base = load_base(spec, dtype=dtype, quantization=quantization)
    if base.fingerprint != fingerprint:
        raise InputError(
            f"A worker's base '{spec}' has other weights than the one here",
            "Give every machine the same base",
        )

    def read(passages: Sequence[Passage]) -> list[Losses]:
        found = {number: losses for batch in losses_of(base, passages) for number, losses in batch}
        return [found[number] for number in range(len(passages))]

    return read
