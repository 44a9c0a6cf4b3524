"""Behaviour tests: prompts and what is expected of the answers, in a YAML file.

The file travels with the adapter as ``behaviour.yaml``. Answers are greedy, so a test says the same
in every run.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from loratelier.check.drift import answer_text
from loratelier.check.looks import AFTER, BEFORE, Looks
from loratelier.check.thresholds import parse_yaml, read_yaml
from loratelier.kit.errors import InputError
from loratelier.kit.models import Strict, problem
from loratelier.kit.progress import task
from loratelier.scope.prompt import encode_prompt

_REFUSAL = re.compile(
    r"\b(i('|’)?m sorry|i am sorry|i can(no|('|’))t|i cannot|i('|’)m (not able|unable)|"
    r"i am (not able|unable)|i won('|’)t|as an ai)\b|"
    r"\b(я не могу|не могу (помочь|ответить|выполнить)|извините|к сожалению, я|простите, но|"
    r"я не буду)\b",
    re.IGNORECASE,
)
_LIST_ITEM = re.compile(r"^\s*([-*•]|\d+[.)])\s+\S")


class Structure(Strict):
    """The form of an answer. A list has two lines or more that begin as items do."""

    form: Literal["list", "json"] | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    min_words: int | None = Field(default=None, ge=0)
    max_words: int | None = Field(default=None, ge=1)

    def misses(self, text: str) -> list[str]:
        """Return what an answer lacks."""
        count = len(text.split())
        missed = []
        if self.form == "list" and sum(bool(_LIST_ITEM.match(li)) for li in text.split("\n")) < 2:
            missed.append("it is no list")
        if self.form == "json" and not _is_json(text):
            missed.append("it is no JSON")
        if self.starts_with is not None and not text.startswith(self.starts_with):
            missed.append(f"it does not start with '{self.starts_with}'")
        if self.ends_with is not None and not text.endswith(self.ends_with):
            missed.append(f"it does not end with '{self.ends_with}'")
        if self.min_words is not None and count < self.min_words:
            missed.append(f"it has {count} words, not {self.min_words} or more")
        if self.max_words is not None and count > self.max_words:
            missed.append(f"it has {count} words, not {self.max_words} or fewer")
        return missed


class Likelier(Strict):
    """``answer`` must be likelier than ``than`` after the prompt, by at least ``by`` nats."""

    answer: str = Field(min_length=1)
    than: str = Field(min_length=1)
    by: float = 0.0


class Expect(Strict):
    """What is expected of an answer; ``/.../`` in the lists is a regular expression."""

    contains: tuple[str, ...] = ()
    not_contains: tuple[str, ...] = ()
    structure: Structure | None = None
    likelier: Likelier | None = None
    differs_from_base: Literal[True] | None = None
    same_as_base: Literal[True] | None = None
    refuses: bool | None = None

    @field_validator("contains", "not_contains")
    @classmethod
    def _readable(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                _pattern(pattern)
            except re.error as error:
                raise ValueError(f"{pattern} is no regular expression ({error})") from error
        return patterns

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("nothing is expected")
        if self.differs_from_base and self.same_as_base:
            raise ValueError("an answer cannot both differ from the base's and be the same")
        return self


class Case(Strict):
    """One prompt, and what is expected of its answer."""

    name: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    system: str | None = None
    max_new_tokens: int = Field(default=60, ge=1, le=1024)
    expect: Expect


class Behaviour(Strict):
    """A file of tests."""

    tests: tuple[Case, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        names = [test.name for test in self.tests]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two tests are called '{twice}'")
        return self


@dataclass(frozen=True)
class Outcome:
    """A test that was run; ``missed`` says in what it failed."""

    name: str
    prompt: str
    answer: str
    missed: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing was missed."""
        return not self.missed


def load_behaviour(path: Path) -> Behaviour:
    """Read a file of tests.

    Raises:
        InputError: it is missing or no YAML, a key is unknown (the nearest is named), or a value
            is not allowed.
    """
    return _behaviour(read_yaml(path, "behaviour tests"), str(path))


def parse_behaviour(text: str, where: str) -> Behaviour:
    """Read tests from the text of a file.

    Raises:
        InputError: as :func:`load_behaviour`.
    """
    return _behaviour(parse_yaml(text, where, "behaviour tests"), where)


def _behaviour(values: object, where: str) -> Behaviour:
    try:
        return Behaviour.model_validate(values)
    except InputError as error:
        raise InputError(f"{where}: {error.what}", error.mend) from error
    except ValidationError as error:
        raise InputError(f"{where}: {problem(error)}") from error


def run_behaviour(looks: Looks, behaviour: Behaviour) -> tuple[Outcome, ...]:
    """Let both looks answer, and compare the adapter's answers with what is expected.

    Raises:
        InputError: a prompt that the base's chat template refuses.
    """
    tests = behaviour.tests
    with task("Behaviour tests", total=2) as bar:
        after = _answers(looks, tests, AFTER)
        bar.advance()
        paired = any(test.expect.differs_from_base or test.expect.same_as_base for test in tests)
        before = _answers(looks, tests, BEFORE) if paired and looks.effect else after
        bar.advance()
    return tuple(
        Outcome(test.name, test.prompt, new, tuple(_misses(looks, test, old, new)))
        for test, old, new in zip(tests, before, after, strict=True)
    )


def _answers(looks: Looks, tests: Sequence[Case], look: float) -> list[str]:
    """Answer all prompts, those of one limit together."""
    answers = [""] * len(tests)
    for limit in sorted({test.max_new_tokens for test in tests}):
        chosen = [n for n, test in enumerate(tests) if test.max_new_tokens == limit]
        prompts = [_ids(looks, tests[n]) for n in chosen]
        for n, text in zip(chosen, looks.texts(looks.answers(prompts, limit, look)), strict=True):
            answers[n] = text
    return answers


def _ids(looks: Looks, test: Case) -> tuple[int, ...]:
    raw = not looks.base.tokenizer.chat_template
    return encode_prompt(looks.base, test.prompt, raw=raw, system=test.system).ids


def _misses(looks: Looks, test: Case, before: str, after: str) -> list[str]:
    expect = test.expect
    missed = [f"it lacks {one}" for one in expect.contains if not _pattern(one).search(after)]
    missed += [f"it has {one}" for one in expect.not_contains if _pattern(one).search(after)]
    if expect.structure is not None:
        missed += expect.structure.misses(after)
    if expect.differs_from_base and before == after:
        missed.append("it is the base's answer")
    if expect.same_as_base and before != after:
        missed.append("it is not the base's answer")
    if expect.refuses is not None and refuses(after) != expect.refuses:
        missed.append("it does not refuse" if expect.refuses else "it refuses")
    if expect.likelier is not None:
        missed += _unlikely(looks, test, expect.likelier)
    return missed


def _unlikely(looks: Looks, test: Case, wanted: Likelier) -> list[str]:
    better, worse = (
        looks.compare(answer_text(looks, test.prompt, answer, system=test.system)).after
        for answer in (wanted.answer, wanted.than)
    )
    margin = worse - better
    if margin >= wanted.by:
        return []
    return [f"'{wanted.answer}' is likelier by {margin:.2f} nats, not {wanted.by:g}"]


def refuses(text: str) -> bool:
    """Whether an answer declines, by what English and Russian refusals begin with."""
    return _REFUSAL.search(text[:200]) is not None


def _pattern(given: str) -> re.Pattern[str]:
    """Return a pattern: ``/.../`` is one, anything else stands for itself, case aside."""
    if len(given) > 2 and given.startswith("/") and given.endswith("/"):
        return re.compile(given[1:-1], re.IGNORECASE | re.MULTILINE)
    return re.compile(re.escape(given), re.IGNORECASE)


def _is_json(text: str) -> bool:
    """Whether an answer is JSON, a Markdown fence around it aside."""
    bare = re.sub(r"^```(?:json)?\s*\n(.*)\n```$", r"\1", text.strip(), flags=re.DOTALL)
    try:
        json.loads(bare)
    except ValueError:
        return False
    return True
