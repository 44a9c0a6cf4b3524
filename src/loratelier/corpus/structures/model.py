"""The schema of a structure of thought: what moves in it, by what signs it is known, and its rows.

A *movement* (if → then, search, silence) and an *event* (an error noticed, a restart) are steps in
an order. An *epistemology* has grounds on which a claim may stand, and grounds that it refuses.
"""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Literal

from pydantic import Field, field_validator, model_validator

from loratelier.corpus.scenes.model import Language, Name, Words, check_once
from loratelier.kit.models import Strict

_SLOT = re.compile(r"\{(\w+)\}")


class Part(Strict):
    """A step or a ground, and the signs by which it is known in a text.

    ``words``: by language, words and phrases, found whole and in any case; ``*`` at the end of a
    word stands for any ending. ``shapes``: regular expressions for every language, line by line
    (``^`` and ``$`` are a line's ends). A part without signs is the writer's own and cannot be
    recognised.
    """

    id: Name
    about: str = ""
    words: dict[Language, tuple[str, ...]] = Field(default_factory=dict)
    shapes: tuple[str, ...] = ()

    @field_validator("shapes")
    @classmethod
    def _compile(cls, shapes: tuple[str, ...]) -> tuple[str, ...]:
        for shape in shapes:
            try:
                re.compile(shape)
            except re.error as error:
                raise ValueError(f"'{shape}' is no regular expression ({error})") from error
        return shapes

    @cached_property
    def patterns(self) -> dict[str, re.Pattern[str]]:
        """One expression a language that finds any of the signs; none where there is no sign."""
        return {
            language: re.compile("|".join(signs), re.IGNORECASE | re.MULTILINE)
            for language in ("en", "ru")
            if (signs := [*map(_whole, self.words.get(language, ())), *self.shapes])
        }


class Written(Strict):
    """One row as a writer made it: a whole ``reply``, or ``fill`` for the slots of the template."""

    prompt: Words
    reply: Words | None = None
    fill: dict[str, Words] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "Written":
        if (self.reply is None) == (self.fill is None):
            raise ValueError(
                "a row has a reply, or a fill for the template's slots: one of the two"
            )
        return self


class Structure(Strict):
    """A structure with the rows written in it; ``rows`` and ``templates`` are kept by language.

    Every row must show the structure: each step by one of its signs, in order; of an epistemology
    one of its grounds and none that it refuses.
    """

    id: Name
    kind: Literal["movement", "event", "epistemology"]
    about: dict[Language, Words] = Field(min_length=1)
    steps: tuple[Part, ...] = ()
    grounds: tuple[Part, ...] = ()
    refused: tuple[Part, ...] = ()
    templates: dict[Language, Words] = Field(default_factory=dict)
    rows: dict[Language, tuple[Written, ...]] = Field(min_length=1)

    @model_validator(mode="after")
    def _parts(self) -> "Structure":
        knows = self.kind == "epistemology"
        if knows and (self.steps or not self.grounds):
            raise ValueError("an epistemology has grounds, and no steps")
        if not knows and (self.grounds or self.refused or not self.steps):
            raise ValueError(f"a structure of the kind {self.kind} has steps, and no grounds")
        check_once("part", [part.id for part in (*self.steps, *self.grounds, *self.refused)])
        for language in self.rows:
            if not any(language in part.patterns for part in (*self.steps, *self.grounds)):
                raise ValueError(f"no sign is given in '{language}', so its rows cannot be known")
        return self

    @model_validator(mode="after")
    def _filled(self) -> "Structure":
        for language, number, row in self.numbered():
            if row.fill is None:
                continue
            where = f"row {number} in '{language}'"
            if language not in self.templates:
                raise ValueError(f"{where} fills a template, and there is none in this language")
            slots = set(_SLOT.findall(self.templates[language]))
            if slots != set(row.fill):
                raise ValueError(
                    f"{where} fills {', '.join(sorted(row.fill))}; the template's slots are "
                    + ", ".join(sorted(slots))
                )
        return self

    def numbered(self) -> Iterator[tuple[Language, int, Written]]:
        """Yield the rows with their language and their number from 1 in it."""
        for language, rows in self.rows.items():
            for number, row in enumerate(rows, start=1):
                yield language, number, row

    def reply(self, language: Language, row: Written) -> str:
        """Return what a row answers: its reply, or the template with its slots filled."""
        if row.reply is not None:
            return row.reply
        fill = row.fill or {}
        return _SLOT.sub(lambda slot: fill[slot[1]], self.templates[language])


def _whole(sign: str) -> str:
    """Return an expression for a word or phrase that is not part of a longer word."""
    words = (
        re.escape(word.removesuffix("*")) + (r"\w*" if word.endswith("*") else "")
        for word in sign.split()
    )
    return r"(?<!\w)" + r"\s+".join(words) + r"(?!\w)"
