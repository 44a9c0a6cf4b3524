"""What an adapter changes in the next-token expectations along one prompt, as data."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from loratelier.base.outline import Outline
from loratelier.scope.attention_shift import AttentionShift
from loratelier.scope.attribute import Attribution
from loratelier.scope.experts import Experts
from loratelier.scope.inside import Inside
from loratelier.scope.keywords import Keyword
from loratelier.scope.lens_view import Lens
from loratelier.scope.moves import Move, Position, Total
from loratelier.scope.weights import Weights

NO_EFFECT = "This adapter has no effect: its update is zero everywhere"
OFF = "At strength 0 the adapter is off, so nothing changes"
DIRECTION = "KL(base || adapter), nats"


@dataclass(frozen=True)
class Continuation:
    """A text after the prompt, scored by both models.

    ``positions[i].next`` is its token i, so the first position is the prompt's last token.
    ``ended`` says that it closes with an end token, which ``ids`` and ``tokens`` hold and ``text``
    does not. ``parting`` is where in ``text`` the token lies at which base and adapter part: a
    span of characters, empty for an end token; None if they do not part, and for a given text.
    """

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    ended: bool
    positions: tuple[Position, ...]
    parting: tuple[int, int] | None

    @property
    def kl(self) -> tuple[float, ...]:
        """KL(base || adapter) in nats for each token of the text, at the place where it stands."""
        return tuple(position.kl for position in self.positions)


@dataclass(frozen=True)
class Parting:
    """The first token at which the two greedy continuations differ, counted from 0."""

    index: int
    base: Move
    adapter: Move


@dataclass(frozen=True)
class Summary:
    """The change in a few figures.

    ``mean_kl`` and ``largest`` are over the prompt, ``answer_kl`` and ``answer_largest`` over the
    adapter's own continuation; ``rose`` and ``fell`` are sums over both. ``sentences`` say the
    same in English, the headline first.
    """

    mean_kl: float
    largest: Position
    answer_kl: float
    answer_largest: Position
    rose: tuple[Total, ...]
    fell: tuple[Total, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """One prompt, seen by a base and by the same base wearing an adapter.

    ``before`` is the adapter that the base wears in the first of the two looks; None where it is
    bare. What is called the base's below is then that adapter's. ``effect`` is false when nothing
    can change: the update is zero, the strength is, or both adapters are the same.
    ``has_effect`` is false when no update is other than zero. ``keywords`` are those
    that were asked for, followed along the prompt. ``outline`` is the plan of the base's
    model, for pictures. ``continuations`` holds ``base`` and
    ``adapter``, each look's greedy answer, and ``given`` where a text was handed in.
    """

    base: str
    adapter: str
    before: str | None
    fingerprint: str
    prompt: str | tuple[dict[str, str], ...]
    question: str
    text: str
    strength: float
    effect: bool
    has_effect: bool
    positions: tuple[Position, ...]
    continuations: Mapping[str, Continuation]
    parts_at: Parting | None
    inside: Inside
    keywords: tuple[Keyword, ...]
    outline: Outline
    summary: Summary

    @property
    def attention(self) -> AttentionShift | None:
        """Whom each token looks at, before and after; None where it was not looked at."""
        return self.inside.attention

    @property
    def lens(self) -> Lens | None:
        """What each layer would say next, before and after; None where it was not looked at."""
        return self.inside.lens

    @property
    def weights(self) -> Weights | None:
        """How large each site's update is; None where it was not looked at."""
        return self.inside.weights

    @property
    def experts(self) -> Experts | None:
        """How the routers of a mixture of experts moved; None where it was not looked at."""
        return self.inside.experts

    @property
    def sites(self) -> Attribution | None:
        """Which sites did it; None where they were not looked at."""
        return self.inside.sites

    @property
    def kl(self) -> list[float]:
        """KL(base || adapter) in nats after each token of the prompt."""
        return [position.kl for position in self.positions]

    @property
    def moves(self) -> list[tuple[tuple[Move, ...], tuple[Move, ...]]]:
        """(rose, fell) after each token of the prompt."""
        return [(position.rose, position.fell) for position in self.positions]

    @property
    def base_text(self) -> str:
        """The base's greedy answer."""
        return self.continuations["base"].text

    @property
    def adapter_text(self) -> str:
        """The greedy answer with the adapter worn."""
        return self.continuations["adapter"].text

    def to_json(self) -> dict[str, Any]:
        """Return a document of plain lists, dicts, strings and finite numbers.

        Keys: ``base adapter before fingerprint prompt question text strength effect`` as above;
        ``kl_direction`` names the direction and unit of every KL; ``positions`` is a list of
        ``{index id token kl rose fell next}`` where ``rose`` and ``fell`` are lists of moves
        ``{id token before after rank_before rank_after}`` and ``next`` is a move or null; ``kl``
        repeats the positions' values; ``continuations`` maps ``base``, ``adapter`` and perhaps
        ``given`` to ``{text ids tokens ended parting positions kl}``; ``parts_at`` is null or
        ``{index base adapter}`` with two moves; ``attention``, ``lens``, ``sites``,
        ``weights`` and ``experts`` are what :class:`AttentionShift`, :class:`Lens`,
        :class:`Attribution`, :class:`Weights` and :class:`Experts` say, or null; ``keywords`` lists
        what :class:`Keyword` says; ``summary`` is ``{mean_kl
        max_kl max_kl_index answer_mean_kl answer_max_kl answer_max_kl_index rose fell sentences}``,
        its totals ``{id token change}``.
        """
        summary = self.summary
        document = {
            "base": self.base,
            "adapter": self.adapter,
            "before": self.before,
            "fingerprint": self.fingerprint,
            "prompt": self.prompt,
            "question": self.question,
            "text": self.text,
            "strength": self.strength,
            "effect": self.effect,
            "kl_direction": DIRECTION,
            "positions": [asdict(position) for position in self.positions],
            "kl": self.kl,
            "continuations": {
                name: asdict(one) | {"kl": one.kl} for name, one in self.continuations.items()
            },
            "parts_at": asdict(self.parts_at) if self.parts_at else None,
            "attention": self.attention.to_json() if self.attention else None,
            "lens": self.lens.to_json() if self.lens else None,
            "weights": self.weights.to_json() if self.weights else None,
            "keywords": [keyword.to_json() for keyword in self.keywords],
            "experts": self.experts.to_json() if self.experts else None,
            "sites": self.sites.to_json() if self.sites else None,
            "summary": {
                "mean_kl": summary.mean_kl,
                "max_kl": summary.largest.kl,
                "max_kl_index": summary.largest.index,
                "answer_mean_kl": summary.answer_kl,
                "answer_max_kl": summary.answer_largest.kl,
                "answer_max_kl_index": summary.answer_largest.index,
                "rose": [asdict(total) for total in summary.rose],
                "fell": [asdict(total) for total in summary.fell],
                "sentences": summary.sentences,
            },
        }
        # Tuples become lists, and a number that is none would be refused here.
        plain: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
        return plain

    def to_html(self) -> str:
        """Return one self-contained page, light and dark, English with Russian at a click."""
        from loratelier.scope.report import page

        return page(self)
