"""``inspect_prompt``: base and adapter on one prompt, in one pass."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import zip_longest

from loratelier.adapter import Adapter
from loratelier.base import Base
from loratelier.base.outline import outline
from loratelier.kit.errors import InputError
from loratelier.scope.change import Change
from loratelier.scope.compare import Compared, totals
from loratelier.scope.inside import PARTS, look_inside
from loratelier.scope.inspection import Continuation, Inspection, Parting, Summary
from loratelier.scope.keywords import track_keywords
from loratelier.scope.moves import Position
from loratelier.scope.prompt import Messages, encode_prompt, end_ids, words
from loratelier.scope.sides import Sides
from loratelier.scope.targets import Asked
from loratelier.scope.wording import ENGLISH, sentences


def inspect_prompt(
    base: Base,
    adapter: Adapter,
    prompt: str | Messages,
    *,
    before: Adapter | None = None,
    raw: bool = False,
    system: str | None = None,
    continuation: str | None = None,
    top: int = 8,
    max_new_tokens: int = 60,
    strength: float = 1.0,
    parts: Collection[str] = PARTS,
    target: Asked | None = None,
    keywords: Sequence[str] = (),
) -> Inspection:
    """Show what wearing an adapter does to a prompt.

    Base and adapter read the same tokens as two rows of one batch that differ only in the gate.
    Both answer greedily, and each answer is then read by both. What happens inside is looked at
    where the answers part: after the prompt and what both say alike, or after the prompt alone
    where they are the same.

    Args:
        base: the base; it is left as it was.
        adapter: made for that base.
        prompt: a user's message, or a list of messages, put through the chat template.
        before: an adapter to compare with, such as an earlier version; None for the base.
        raw: take the prompt as plain text instead.
        system: a system message before it.
        continuation: a text to score after the prompt, besides the two answers.
        top: how many risen and fallen tokens to keep at each position.
        max_new_tokens: the most tokens that each answer may have.
        strength: the adapter's gate, from -2 to 4.
        parts: what to look at inside the model, any of ``attention``, ``lens``, ``sites``,
            ``weights`` and ``experts``.
        target: what the shares of the sites explain, see :mod:`loratelier.scope.targets`; without
            it the token that the adapter says where the answers part, against the base's.
        keywords: words to follow along the prompt, in all their spellings.

    Raises:
        InputError: an adapter for another base, a prompt that is empty or longer than the base can
            read, contradicting options, or figures out of range.
    """
    _check(top, max_new_tokens)
    change = Change(base, adapter, before=before, strength=strength)
    base = change.base
    encoded = encode_prompt(base, prompt, raw=raw, system=system)
    room = _room(base, len(encoded.ids))
    sides = Sides(change, top)
    base_ids, adapter_ids = sides.answers(encoded.ids, min(max_new_tokens, room))
    texts = {"base": base_ids, "adapter": adapter_ids}
    if continuation is not None:
        texts["given"] = _given(base, continuation, room)
    along = {name: sides.read_on(encoded.ids, ids) for name, ids in texts.items()}
    parts_at = _parting(base_ids, adapter_ids, along)
    read = sides.read(encoded.ids)
    shared = base_ids[: parts_at.index] if parts_at else []
    inside = look_inside(change, [*encoded.ids, *shared], parts, target)
    seen = Inspection(
        base=base.name,
        adapter=adapter.name,
        before=before.name if before else None,
        fingerprint=base.fingerprint,
        prompt=encoded.text if encoded.messages is None else encoded.messages,
        question=encoded.question,
        text=encoded.text,
        strength=strength,
        effect=change.effect,
        has_effect=change.has_effect,
        positions=read.positions,
        continuations={
            name: _continuation(base, ids, along[name], parts_at if name != "given" else None)
            for name, ids in texts.items()
        },
        parts_at=parts_at,
        inside=inside,
        keywords=track_keywords(change, [encoded.ids], keywords) if keywords else (),
        outline=outline(base),
        summary=_summary(read, along["adapter"], top, sides),
    )
    return replace(seen, summary=replace(seen.summary, sentences=sentences(seen, ENGLISH)))


def _check(top: int, max_new_tokens: int) -> None:
    if top < 1:
        raise InputError(f"top is {top}", "Keep one token or more")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}", "Let one token or more be written")


def _room(base: Base, length: int) -> int:
    """Return how many tokens may follow a prompt of ``length`` tokens."""
    if base.context is None:
        # Nobody says how far this base can read: no limit is made up.
        return 1 << 30
    if length >= base.context:
        raise InputError(
            f"The prompt has {length} tokens, and the base {base.name} reads {base.context}, "
            "its answer included",
            "Shorten it",
        )
    return base.context - length


def _given(base: Base, continuation: str, room: int) -> list[int]:
    ids = list(base.tokenizer(continuation, add_special_tokens=False)["input_ids"])
    if not ids:
        raise InputError("The continuation is empty", "Give some text, or leave it out")
    if len(ids) > room:
        raise InputError(
            f"The continuation has {len(ids)} tokens, and after this prompt the base "
            f"{base.name} reads {room} more",
            "Shorten it",
        )
    return ids


def _parting(
    base_ids: Sequence[int], adapter_ids: Sequence[int], along: dict[str, Compared]
) -> Parting | None:
    pairs = enumerate(zip_longest(base_ids, adapter_ids))
    index = next((n for n, (one, other) in pairs if one != other), None)
    if index is None:
        return None
    # Up to here the answers are the same text, so both moves are about one and the same place.
    base, adapter = (along[name].positions[index].next for name in ("base", "adapter"))
    return Parting(index, base, adapter) if base and adapter else None


def _continuation(
    base: Base, ids: Sequence[int], read: Compared, parts_at: Parting | None
) -> Continuation:
    text = words(base, ids)
    parting = None
    if parts_at:
        begin = len(words(base, ids[: parts_at.index]))
        parting = (begin, len(words(base, ids[: parts_at.index + 1])))
    return Continuation(
        text=text,
        ids=tuple(ids),
        tokens=tuple(position.next.token for position in read.positions if position.next),
        ended=ids[-1] in end_ids(base),
        positions=read.positions,
        parting=parting,
    )


def _summary(read: Compared, answer: Compared, top: int, sides: Sides) -> Summary:
    # The answer's first position is the prompt's last, counted once.
    rose, fell = totals(read.change + answer.change - answer.first_change, top, sides.pieces)
    return Summary(
        mean_kl=_mean(read.positions),
        largest=_largest(read.positions),
        answer_kl=_mean(answer.positions),
        answer_largest=_largest(answer.positions),
        rose=rose,
        fell=fell,
        sentences=(),
    )


def _mean(positions: Sequence[Position]) -> float:
    return sum(position.kl for position in positions) / len(positions)


def _largest(positions: Sequence[Position]) -> Position:
    return max(positions, key=lambda position: position.kl)
