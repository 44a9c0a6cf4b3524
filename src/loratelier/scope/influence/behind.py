"""``rows_behind``: from a move to the rows that pushed it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from loratelier.adapter import Adapter
from loratelier.base import Base
from loratelier.corpus import Corpus
from loratelier.kit.errors import InputError
from loratelier.kit.models import problem
from loratelier.scope.change import Change
from loratelier.scope.influence.aim import value_of
from loratelier.scope.influence.figures import Influence, Method, Points, RowPush, Source
from loratelier.scope.influence.slopes import Slopes, look, squared, undone
from loratelier.scope.prompt import Messages, encode_prompt
from loratelier.scope.targets import Asked, Target, target_of
from loratelier.train.again import put_on, put_on_fresh
from loratelier.train.examples import Example
from loratelier.train.learner import Learner
from loratelier.train.objective import Sft
from loratelier.train.recipe import Recipe
from loratelier.train.token_mask import mask_tokens

_ASKED, _EXCERPT = 120, 240  # characters that are shown of a row
_AT_ONCE = 1024  # tokens in memory while the token mask is found


def rows_behind(
    base: Base,
    adapter: Adapter,
    corpus: Corpus,
    prompt: str | Messages,
    target: Asked | None = None,
    *,
    after: int = -1,
    method: Method = "gradient",
    points: Points = "end",
    raw: bool = False,
    system: str | None = None,
) -> Influence:
    """Say of every row that an adapter was trained on how much learning it pushes a target.

    A step of gradient descent on a row's loss L moves a target f by ``-rate * <grad f, grad L>``
    to first order, gradients being over the adapter's A and B (TracIn, arXiv:2002.08484). With
    ``points="end"`` both gradients are taken where training ended, with ``"start"`` where it began
    (the recipe's seed draws that adapter again), with ``"both"`` at both, and summed.
    ``method="datainf"`` puts a closed form of the inverse curvature between them
    (arXiv:2310.00902), which is for the end of training.

    Args:
        base: the base that the adapter was trained for; it is handed back as it came.
        adapter: trained here, by the objective sft.
        corpus: what it was trained on.
        prompt: a user's message, or a list of messages, put through the chat template.
        target: what is looked at, as :mod:`loratelier.scope.targets` has it: a token or an answer,
            two of them as a contrast, a divergence, a word's mass; None for the token that the
            adapter made the likeliest against the one that was.
        after: the number of the prompt's token after which the target stands, from 0, or from the
            end if below 0.
        method: see above.
        points: see above.
        raw: take the prompt as plain text instead.
        system: a system message before it.

    Raises:
        InputError: an adapter that names no corpus, or another one than this, or whose recipe did
            not learn rows; a prompt or a target that cannot be read.
    """
    recipe = _recipe(adapter, corpus)
    if points != "end":
        _require_a_known_start(recipe, method)
    change = Change(base, adapter)
    base = change.base
    encoded = encode_prompt(base, prompt, raw=raw, system=system)
    aim = target_of(change, _until(encoded.ids, after), target)
    rows, _ = Sft().rows(base, corpus, recipe)
    with put_on(base, adapter, recipe) as learner:
        rows = _masked(base, corpus, learner, rows)
        values = _values(aim, learner)
    found = _Sums(len(rows))
    if points != "start":
        found.add(put_on(base, adapter, recipe), aim, rows, method)
    if points != "end":
        found.add(put_on_fresh(base, recipe), aim, rows, method)
    return Influence(
        base=base.name,
        adapter=adapter.name,
        corpus=corpus.hash,
        prompt=encoded.question,
        target=aim.words,
        unit=aim.unit,
        before=values[0],
        after=values[1],
        method=method,
        points=points,
        rows=_pushes(rows, found, _records(corpus)),
    )


def _recipe(adapter: Adapter, corpus: Corpus) -> Recipe:
    """Return what the adapter was trained by, once it is sure that it was on this corpus."""
    card = adapter.card
    if card.corpus is None or card.recipe is None:
        raise InputError(
            f"The card of '{adapter.name}' names no corpus that it was trained on, so its rows "
            "cannot be asked",
            "Take an adapter that `loratelier train` made",
        )
    if card.corpus.hash != corpus.hash:
        raise InputError(
            f"'{adapter.name}' was trained on the corpus {card.corpus.hash[:12]}, and this one is "
            f"{corpus.hash[:12]}",
            "Give the corpus that it was trained on, as it was then",
        )
    objective = card.recipe.get("objective", "sft")
    if objective != "sft":
        raise InputError(
            f"'{adapter.name}' was trained by the objective {objective}, and rows can be asked of "
            "sft only"
        )
    try:
        return Recipe.model_validate({**card.recipe, "corpus": "the corpus"})
    except ValidationError as error:
        raise InputError(f"The card of '{adapter.name}': recipe, {problem(error)}") from error


def _until(ids: Sequence[int], after: int) -> tuple[int, ...]:
    if not -len(ids) <= after < len(ids):
        raise InputError(
            f"The prompt has {len(ids)} tokens, and the target stands after number {after}",
            f"Count from 0 to {len(ids) - 1}, or from the end with -1",
        )
    return tuple(ids[: after % len(ids) + 1])


def _require_a_known_start(recipe: Recipe, method: Method) -> None:
    if recipe.init not in ("default", "orthogonal") or recipe.new_tokens:
        raise InputError(
            "Where the training of this adapter began cannot be drawn again", "Use points='end'"
        )
    if method == "datainf":
        raise InputError("DataInf is for the end of training", "Use points='end'")


def _masked(base: Base, corpus: Corpus, learner: Learner, rows: Sequence[Example]) -> list[Example]:
    above = learner.recipe.guards.token_mask
    if above is None:
        return list(rows)
    return mask_tokens(base, corpus, learner, rows, above, _AT_ONCE).rows


@torch.no_grad()
def _values(aim: Target, learner: Learner) -> tuple[float, float]:
    with learner.gate_closed():
        before = float(value_of(aim, learner))
    return before, float(value_of(aim, learner))


class _Sums:
    """Inner products and squared lengths of n rows, summed over the points of the training."""

    def __init__(self, count: int) -> None:
        self.push = torch.zeros(count, dtype=torch.float64)
        self.squared = torch.zeros(count, dtype=torch.float64)
        self.direction = 0.0

    @property
    def cosine(self) -> Tensor:
        """The inner products over both lengths: float64 [n]; 0 where one of them is 0."""
        lengths = (self.squared * self.direction).sqrt()
        return torch.where(lengths > 0, self.push / lengths.clamp_min(1e-300), 0.0)

    def add(
        self,
        worn: AbstractContextManager[Learner],
        aim: Target,
        rows: Sequence[Example],
        method: Method,
    ) -> None:
        """Add one point."""
        with worn as learner:
            slopes = Slopes(learner)
            direction = slopes.of(value_of(aim, learner))
            if method == "datainf":
                direction = undone(slopes, rows, direction)
            seen = look(slopes, rows, direction, "Asking the rows")
        # Learning goes down the loss: a row raises what its loss falls along.
        self.push -= seen.along.sum(1)
        self.squared += seen.squared.sum(1)
        self.direction += squared(direction)


def _records(corpus: Corpus) -> dict[str, Mapping[str, Any]]:
    table = corpus.rows.select(["id", "messages", "text", "lineage"])
    return {record["id"]: record for record in table.to_pylist()}


def _pushes(
    rows: Sequence[Example], found: _Sums, records: Mapping[str, Mapping[str, Any]]
) -> tuple[RowPush, ...]:
    made = [
        RowPush(
            row=row.row,
            conversation=row.conversation,
            tokens=row.targets,
            push=push,
            per_token=push / row.targets if row.targets else 0.0,
            cosine=cosine,
            asked=_said(records[row.row], "user", _ASKED),
            excerpt=_said(records[row.row], "assistant", _EXCERPT),
            sources=tuple(_source(one) for one in records[row.row]["lineage"]),
        )
        for row, push, cosine in zip(rows, found.push.tolist(), found.cosine.tolist(), strict=True)
    ]
    return tuple(sorted(made, key=lambda row: -row.push))


def _said(record: Mapping[str, Any], role: str, length: int) -> str:
    """Return the beginning of what a role says in a row; of a text, of the text."""
    if record["messages"] is None:
        words = record["text"] if role == "assistant" else ""
    else:
        words = " ".join(m["content"] for m in record["messages"] if m["role"] == role)
    words = " ".join(words.split())
    return words if len(words) <= length else words[: length - 1].rstrip() + "…"


def _source(one: Mapping[str, Any]) -> Source:
    keys = ("file", "uid", "item", "start", "end", "role")
    return Source(**{key: one[key] for key in keys})
