"""What an adapter changes over many texts: a set of prompts, or the rows of a corpus."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from loratelier.adapter import Adapter
from loratelier.base import Base
from loratelier.corpus import Corpus
from loratelier.kit.errors import InputError
from loratelier.kit.progress import task
from loratelier.scope.change import Change
from loratelier.scope.compare import Compared, totals
from loratelier.scope.inspection import DIRECTION
from loratelier.scope.moves import Position, Total
from loratelier.scope.prompt import Messages, encode_prompt
from loratelier.scope.sides import Sides

_EXCERPT = 60


@dataclass(frozen=True)
class Surveyed:
    """One text. ``kl`` is the mean over ``tokens`` places, ``largest`` the place of the most.

    The places are those of the answer where the text has one, else those of the prompt; then
    ``nll_before`` and ``nll_after`` are nats per token of the answer, else None.
    """

    name: str
    excerpt: str
    tokens: int
    kl: float
    largest: Position
    nll_before: float | None
    nll_after: float | None


@dataclass(frozen=True)
class Survey:
    """Many texts, each seen before and after.

    ``kl`` is KL(before || after) in nats, the mean over all places of all texts; ``texts`` are in
    the order of their own mean, largest first. ``rose`` and ``fell`` are the tokens whose
    probability changed most, summed over all places. ``effect`` is false when nothing can change.
    """

    base: str
    adapter: str
    before: str | None
    strength: float
    effect: bool
    tokens: int
    kl: float
    nll_before: float | None
    nll_after: float | None
    texts: tuple[Surveyed, ...]
    rose: tuple[Total, ...]
    fell: tuple[Total, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a document of plain values, with the direction of the KL."""
        return asdict(self) | {"kl_direction": DIRECTION}


@torch.no_grad()
def survey(
    base: Base,
    adapter: Adapter,
    texts: Sequence[str | Messages] | Corpus,
    *,
    before: Adapter | None = None,
    strength: float = 1.0,
    top: int = 12,
    raw: bool = False,
    system: str | None = None,
    split: str | None = None,
) -> Survey:
    """Read many texts with both looks and say where the expectations part, and which words gain.

    Args:
        base: the base; it is left as it was.
        adapter: made for that base.
        texts: prompts, or lists of messages; of one that ends with an assistant's message that
            answer is read. Of a corpus, the last answer of each row.
        before: an adapter to compare with; None for the base.
        strength: the adapters' gate.
        top: how many risen and fallen tokens to keep.
        raw: take texts as they are, without a chat template.
        system: a system message before each prompt.
        split: of a corpus, the rows of this split alone.

    Raises:
        InputError: no texts, one that is longer than the base reads, or an adapter for another.
    """
    change = Change(base, adapter, before=before, strength=strength)
    named = list(_named(texts, split))
    if not named:
        raise InputError("There are no texts to read", "Give a prompt or more")
    sides, found = Sides(change, top), []
    total: Tensor | None = None
    with task("Reading", total=len(named)) as bar:
        for name, text in named:
            seen, read = _read(change, sides, name, text, raw=raw, system=system)
            total = read.change if total is None else total + read.change
            found.append(seen)
            bar.advance()
    assert total is not None
    places = sum(seen.tokens for seen in found)
    rose, fell = totals(total, top, sides.pieces)
    return Survey(
        base=base.name,
        adapter=adapter.name,
        before=before.name if before else None,
        strength=strength,
        effect=change.effect,
        tokens=places,
        kl=sum(seen.kl * seen.tokens for seen in found) / places,
        nll_before=_mean((seen.tokens, seen.nll_before) for seen in found),
        nll_after=_mean((seen.tokens, seen.nll_after) for seen in found),
        texts=tuple(sorted(found, key=lambda seen: -seen.kl)),
        rose=rose,
        fell=fell,
    )


def _named(
    texts: Sequence[str | Messages] | Corpus, split: str | None
) -> Iterable[tuple[str, str | Messages]]:
    if not isinstance(texts, Corpus):
        yield from ((str(number), text) for number, text in enumerate(texts, start=1))
        return
    if "messages" not in texts.rows.column_names:
        raise InputError("The corpus' rows are no dialogues", "Give its texts as prompts, raw")
    for row in texts.rows.select(["id", "split", "messages"]).to_pylist():
        if split in (None, row["split"]) and row["messages"]:
            yield row["id"], [{k: m[k] for k in ("role", "content")} for m in row["messages"]]


def _read(
    change: Change,
    sides: Sides,
    name: str,
    text: str | Messages,
    *,
    raw: bool,
    system: str | None,
) -> tuple[Surveyed, Compared]:
    answer = None
    if not isinstance(text, str) and len(text) > 1 and text[-1].get("role") == "assistant":
        text, answer = text[:-1], text[-1]["content"]
    prompt = encode_prompt(change.base, text, raw=raw, system=system)
    ids = (
        list(change.base.tokenizer(answer, add_special_tokens=False)["input_ids"]) if answer else []
    )
    _require_room(change.base, name, len(prompt.ids) + len(ids))
    read = sides.read_on(prompt.ids, ids) if ids else sides.read(prompt.ids)
    nexts = [position.next for position in read.positions if position.next] if ids else []
    excerpt = (answer if ids and answer else prompt.question).strip().replace("\n", " ")
    return Surveyed(
        name=name,
        excerpt=excerpt[:_EXCERPT] + ("…" if len(excerpt) > _EXCERPT else ""),
        tokens=len(read.positions),
        kl=sum(position.kl for position in read.positions) / len(read.positions),
        largest=max(read.positions, key=lambda position: position.kl),
        nll_before=_nll([move.before for move in nexts]),
        nll_after=_nll([move.after for move in nexts]),
    ), read


def _require_room(base: Base, name: str, length: int) -> None:
    if base.context is not None and length > base.context:
        raise InputError(
            f"Text {name} has {length} tokens, and the base {base.name} reads {base.context}",
            "Shorten it, or leave it out",
        )


def _nll(probabilities: Sequence[float]) -> float | None:
    if not probabilities:
        return None
    return float(-torch.tensor(probabilities, dtype=torch.float64).log().mean())


def _mean(weighted: Iterable[tuple[int, float | None]]) -> float | None:
    """Return the mean over tokens of what is known."""
    known = [(weight, value) for weight, value in weighted if value is not None]
    tokens = sum(weight for weight, _ in known)
    return sum(weight * value for weight, value in known) / tokens if tokens else None
