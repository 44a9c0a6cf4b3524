"""The card: where an adapter comes from and what was measured, beside PEFT's own files."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from loratelier.adapter.inside import inside
from loratelier.kit.errors import InputError
from loratelier.kit.models import Strict, problem

FILE = "card.json"


class BaseRef(Strict):
    """The base that an adapter was made for.

    ``weights`` are digests, by layer and dtype, of weights of the base that PEFT had saved with the
    adapter: another base is known by them even where no fingerprint is.
    """

    fingerprint: str | None = None
    spec: str | None = None
    name: str | None = None
    weights: dict[str, dict[str, str]] = Field(default_factory=dict)


class CorpusRef(Strict):
    """The corpus that an adapter was trained on, down to the files."""

    hash: str
    rows: int
    conversations: int
    files: list[str]


class Card(Strict):
    """What ``card.json`` holds.

    An adapter that was made elsewhere has no card; its ``base.fingerprint`` is then None, and it
    counts as unproven for every base. ``effect`` is written when the adapter is saved, for readers
    that have only the card; what is here decides by the tensors. ``tokens`` are words that the
    adapter brought as new tokens, with their numbers: ``with_tokens`` gives them to a base.
    ``verdict`` is what the last check found; ``strength`` is the one that calibration recommends.

    Of a merge: ``parents`` with their weights, the ``method``, the ``basis`` that its result
    belongs to, the relative ``truncation_error`` of its rank over all sites, and under ``merge``
    the options, that error by site, and what was checked. Under ``edits`` stands which ranks of it
    set probabilities by hand, see :mod:`loratelier.edit.stack`.
    """

    card_version: Literal[1] = 1
    base: BaseRef = BaseRef()
    corpus: CorpusRef | None = None
    recipe: dict[str, Any] | None = None
    seed: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    tokens: dict[str, int] = Field(default_factory=dict)
    effect: bool | None = None
    verdict: dict[str, Any] | None = None
    strength: float | None = None
    parents: list[dict[str, Any]] = Field(default_factory=list)
    method: str | None = None
    basis: str | None = None
    truncation_error: float | None = None
    merge: dict[str, Any] = Field(default_factory=dict)
    edits: dict[str, Any] = Field(default_factory=dict)
    created: str | None = None
    notes: list[str] = Field(default_factory=list)

    @property
    def proven(self) -> bool:
        """Whether the card names the weights that the adapter was made for."""
        return self.base.fingerprint is not None


def read_card(folder: Path) -> Card:
    """Return the card of an adapter's folder; an empty one if there is none.

    Raises:
        InputError: the card is damaged or of a form that this version does not know.
    """
    path = inside(folder, FILE)
    if not path.exists():
        return Card()
    try:
        return Card.model_validate_json(path.read_text(encoding="utf-8"))
    except InputError as error:
        raise InputError(f"{path}: {error.what}", error.mend) from error
    except ValidationError as error:
        raise InputError(f"{path}: {problem(error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read") from error


def versions() -> dict[str, str]:
    """Return the versions of what decides a result."""
    packages = ("loratelier", "torch", "transformers", "peft")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
