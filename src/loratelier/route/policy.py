"""The policy: one YAML file that says which adapter is worn when."""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from loratelier.kit.errors import InputError, did_you_mean
from loratelier.kit.models import Strict, problem
from loratelier.route.signals import NAME, NONE
from loratelier.scope.strength import HIGHEST

Stage = Literal["name", "signals", "roles", "keywords", "embedding", "learned", "kind"]
STAGES: tuple[Stage, ...] = (
    "name", "signals", "roles", "keywords", "embedding", "learned", "kind",
)  # fmt: skip
Share = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=HIGHEST)]


class AdapterRule(Strict):
    """When one adapter is worn.

    Attributes:
        strength: its gate where a signal says nothing else.
        signals: further names that it is called by in a signal.
        keywords: words or phrases, in any form of theirs, Russian or English.
        patterns: regular expressions, letter case aside.
        about: what it is for, in words; read by the stages that go by sense.
        corpus: a corpus folder with rows like those that it was trained on.
        path: its folder where it is not in the store; for whoever loads it.
    """

    strength: Strength = 1.0
    signals: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    about: str | None = None
    corpus: Path | None = None
    path: Path | None = None

    @field_validator("patterns")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is no regular expression: {error}") from error
        return patterns


class Sampling(Strict):
    """How a role chooses its words; what is not said stays as it was."""

    temperature: Annotated[float, Field(ge=0, le=5)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.5, le=3)] | None = None


class Role(Strict):
    """A set that is put on as a whole.

    Attributes:
        mix: adapter -> strength; empty is the base with the role's words.
        words: what the role is called in plain words ('poet', 'поэт'), in any form.
        signal: its name in a signal; without it the role's own name.
        system: a system prompt that comes before the caller's.
        sampling: how words are chosen.
    """

    mix: dict[str, Strength] = Field(default_factory=dict)
    words: tuple[str, ...] = ()
    signal: str | None = None
    system: str | None = None
    sampling: Sampling = Sampling()


class Keywords(Strict):
    """A hit more than any other adapter has is worth 1/2, two are worth 3/4, and so on."""

    threshold: Share = 0.5


class Sense(Strict):
    """The stages that go by sense: against each adapter's rows and words, or learned from them.

    Attributes:
        by: ``wording`` compares character n-grams, ``hidden`` mean hidden states of the base.
        threshold: below this confidence the base answers (abstention).
        temperature: of the softmax over adapters and the general texts; lower decides harder.
    """

    by: Literal["wording", "hidden"] = "wording"
    threshold: Share = 0.5
    temperature: Annotated[float, Field(gt=0)] = 0.05


class Learned(Strict):
    """A trained router: its folder, and below which confidence the base answers."""

    folder: Path
    threshold: Share = 0.5


class Mixture(Strict):
    """Several adapters at once where sense leaves a doubt.

    Attributes:
        most: how many at most.
        least: the share below which one is left out.
        temperature: their probabilities are raised to 1 / temperature before they are shared out.
    """

    most: Annotated[int, Field(ge=2)] = 2
    least: Share = 0.2
    temperature: Annotated[float, Field(gt=0)] = 1.0


class Sticky(Strict):
    """When what is worn stays on.

    Attributes:
        margin: another set must be at least this much more confident.
        turns: turns that a set is worn at least, unless a signal, a name or plain words say else.
        hold: what was asked for in so many words stays until asked otherwise.
    """

    margin: Share = 0.1
    turns: Annotated[int, Field(ge=0)] = 1
    hold: bool = True


class Conflicts(Strict):
    """Adapters that disagree: worn together only if each is at or below a strength.

    Attributes:
        report: what ``loratelier compare --json`` wrote.
        pairs: further pairs that are known to disagree.
        below: the strength; above it the stronger one is worn alone.
        cosine, sign_conflict: a pair of the report disagrees at or below, at or above these.
    """

    report: Path | None = None
    pairs: tuple[tuple[str, str], ...] = ()
    below: Strength = 0.5
    cosine: Annotated[float, Field(ge=-1, le=1)] = -0.1
    sign_conflict: Share = 0.1


class Kinds(Strict):
    """Which role answers a question that no other stage decides, by the kind of the question."""

    field: str | None = None
    linear: str | None = None


class Policy(Strict):
    """The whole policy; stages are tried in order, and the first that decides does."""

    version: Literal[1] = 1
    base: str | None = None
    adapters: dict[str, AdapterRule] = Field(default_factory=dict)
    roles: dict[str, Role] = Field(default_factory=dict)
    stages: tuple[Stage, ...] = STAGES
    keywords: Keywords = Keywords()
    embedding: Sense = Sense()
    learned: Learned | None = None
    mixture: Mixture | None = None
    sticky: Sticky = Sticky()
    conflicts: Conflicts | None = None
    kinds: Kinds = Kinds()

    @field_validator("adapters", "roles", mode="before")
    @classmethod
    def _bare(cls, values: Any) -> Any:
        # `sport:` with nothing after it is an adapter without rules.
        if isinstance(values, Mapping):
            return {key: {} if value is None else value for key, value in values.items()}
        return values

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if len(set(self.stages)) < len(self.stages):
            raise ValueError("a stage is named twice in 'stages'")
        for name in [*self.adapters, *self.roles, *self.signals]:
            _require_name(name)
        for role, worn in self.roles.items():
            for name in worn.mix:
                self._require_adapter(name, f"the role '{role}' wears")
        for pair in self.conflicts.pairs if self.conflicts else ():
            for name in pair:
                self._require_adapter(name, "a pair of conflicts names")
        for chosen in (self.kinds.field, self.kinds.linear):
            if chosen is not None and chosen not in self.roles:
                raise InputError(
                    f"'kinds' names the role '{chosen}', which is not there",
                    did_you_mean(chosen, self.roles),
                )
        if twice := _twice(list(self._signals())):
            raise ValueError(f"the signal '{twice}' stands for two things")
        return self

    def _require_adapter(self, name: str, who: str) -> None:
        if name not in self.adapters:
            raise InputError(
                f"{who} '{name}', which is not among the adapters",
                did_you_mean(name, self.adapters),
            )

    def _signals(self) -> Iterator[tuple[str, str]]:
        for name, rule in self.adapters.items():
            yield from ((signal, name) for signal in dict.fromkeys([name, *rule.signals]))
        for name, role in self.roles.items():
            signal = role.signal or name
            # A role may have the name of its adapter; the adapter's signal is then the adapter's.
            if role.signal is not None or signal not in self.adapters:
                yield signal, name

    @property
    def signals(self) -> dict[str, str]:
        """Every signal with the adapter or role that it stands for."""
        return dict(self._signals())


def _twice(signals: list[tuple[str, str]]) -> str | None:
    seen: set[str] = set()
    for signal, _ in signals:
        if signal in seen:
            return signal
        seen.add(signal)
    return None


def _require_name(name: str) -> None:
    if not NAME.fullmatch(name) or name == NONE:
        raise InputError(
            f"{name!a} is no name",
            "Letters, digits, '.', '_' and '-', 64 at most, beginning with a letter or a digit; "
            f"'{NONE}' takes everything off",
        )
    if unicodedata.normalize("NFKC", name) != name or len(_alphabets(name)) > 1:
        raise InputError(
            f"The name {name!a} could be taken for another one",
            "Write it with the letters of one alphabet",
        )


def _alphabets(name: str) -> set[str]:
    return {unicodedata.name(letter, "?").split()[0] for letter in name if letter.isalpha()}


def read_policy(path: Path, data: bytes) -> Policy:
    """Read a policy; the paths in it are taken from its own folder.

    Raises:
        InputError: no YAML mapping, an unknown key (the nearest is named), a value that is not
            allowed, or a name that is not there; one line that names the file.
    """
    try:
        values = yaml.safe_load(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8") from error
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise InputError(f"{path} is no YAML: {said}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is no policy", "A policy has 'adapters:' with names under it")
    try:
        policy = Policy.model_validate(values)
    except InputError as error:
        raise InputError(f"{path}: {error.what}", error.mend) from error
    except ValidationError as error:
        raise InputError(f"{path}: {problem(error)}") from error
    return _placed(policy, path.parent)


def _placed(policy: Policy, folder: Path) -> Policy:
    """Return the policy with its relative paths taken from a folder."""
    adapters = {
        name: rule.model_copy(
            update={
                "corpus": rule.corpus and folder / rule.corpus,
                "path": rule.path and folder / rule.path,
            }
        )
        for name, rule in policy.adapters.items()
    }
    changed: dict[str, Any] = {"adapters": adapters}
    if policy.learned is not None:
        whole = folder / policy.learned.folder
        changed["learned"] = policy.learned.model_copy(update={"folder": whole})
    if policy.conflicts is not None and policy.conflicts.report is not None:
        whole = folder / policy.conflicts.report
        changed["conflicts"] = policy.conflicts.model_copy(update={"report": whole})
    return policy.model_copy(update=changed)
