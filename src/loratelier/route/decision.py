"""A decision: what is worn for a turn, and why."""

from dataclasses import asdict, dataclass, field
from typing import Any

from loratelier.route.messages import Message

# A sentence in English and in Russian.
Said = tuple[str, str]


@dataclass(frozen=True)
class Considered:
    """What one stage found, whether it decided or not; ``scores`` by adapter or role."""

    stage: str
    scores: dict[str, float]
    note: str


@dataclass(frozen=True)
class Decision:
    """What is worn for one turn.

    Attributes:
        mix: name -> gate, as ``AdapterBank.activate`` takes it; None is the base as it is.
        reason, reason_ru: why, in a sentence.
        confidence: 0 to 1: 1 where it was said in so many words; else of the stage's own measure.
        stage: which stage decided: name, signals, roles, keywords, embedding, learned, kind,
            sticky (what was worn stays), or base (none decided, or one spoke for the base).
        text: the messages without the signals that may be followed.
        role: the role that was put on, if it is one.
        system: the role's system prompt.
        sampling: the role's settings, only those that it names.
        considered: what each stage found, in order.
        warnings: signals that were left as text, strengths that conflicts forbid.
        turns: how many turns in a row this set has been worn, this one included.
        asked: whether the person asked for this set in so many words, now or earlier.
        kind: field (open, many-sided), linear, or None where the question is neither.
    """

    mix: dict[str, float] | None
    reason: str
    reason_ru: str
    confidence: float
    stage: str
    text: list[Message]
    role: str | None = None
    system: str | None = None
    sampling: dict[str, float] = field(default_factory=dict)
    considered: tuple[Considered, ...] = ()
    warnings: tuple[str, ...] = ()
    turns: int = 1
    asked: bool = False
    kind: str | None = None

    @property
    def messages(self) -> list[Message]:
        """The messages without signals, the role's system prompt before the caller's."""
        if self.system is None:
            return self.text
        first = self.text[0] if self.text else None
        if first is None or first["role"] != "system":
            return [{"role": "system", "content": self.system}, *self.text]
        content = first.get("content")
        if isinstance(content, list):
            joined: Any = [{"type": "text", "text": self.system}, *content]
        else:
            joined = f"{self.system}\n\n{content}" if content else self.system
        return [{**first, "content": joined}, *self.text[1:]]

    def to_json(self) -> dict[str, Any]:
        """Return a document of plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Choice:
    """What one stage chose; an empty mix without a role is the base."""

    stage: str
    mix: dict[str, float]
    confidence: float
    why: Said
    role: str | None = None
    asked: bool = False
