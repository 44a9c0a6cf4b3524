"""The recipe's keys for the kinds of LoRA, and the combinations of them that mean nothing."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from loratelier.kit.errors import InputError
from loratelier.kit.models import Strict

if TYPE_CHECKING:
    from loratelier.train.recipe import Recipe

# Ways of starting that take the start away from what the base's weights make.
IN_THE_BASE = ("pissa", "olora")


class Variants(Strict):
    """What kind of LoRA is trained; the defaults are plain LoRA."""

    rank_pattern: dict[str, int] = Field(
        default_factory=dict,
        description="Another rank for some layers: a regular expression, or how the layer's name "
        "ends, or a short name of targets, and the rank.",
    )
    alpha_pattern: dict[str, float] = Field(
        default_factory=dict, description="Another alpha for some layers, in the same way."
    )
    scaling: Literal["plain", "rslora"] = Field(
        default="plain", description="plain: alpha / rank; rslora: alpha / sqrt(rank)."
    )
    dora: bool = Field(
        default=False, description="Train the length of each row of a weight apart (DoRA)."
    )
    init: Literal["default", "pissa", "olora", "eva", "orthogonal"] = Field(
        default="default", description="Where A and B begin; default: A random, B zero."
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the adapter's inputs that are left out."
    )
    lora_plus: float | None = Field(
        default=None, ge=1, description="The learning rate of B over that of A (LoRA+)."
    )
    quantization: Literal["nf4"] | None = Field(
        default=None, description="nf4: hold the base in 4 bits, twice quantised (QLoRA)."
    )
    invocation: str | None = Field(
        default=None,
        description="The adapter acts from the last occurrence of this text on (aLoRA).",
    )
    new_tokens: tuple[str, ...] | Literal["corpus"] = Field(
        default=(),
        description="Words that become tokens, whose rows alone are trained; 'corpus': its "
        "hyperlexemes.",
    )

    @field_validator("quantization", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return None if value in (False, "none", "off") else value

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _patterns(cls, value: dict[str, float]) -> dict[str, float]:
        for pattern, number in value.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is no regular expression ({error})") from error
            if number <= 0:
                raise ValueError(f"'{pattern}' has {number}, and it must be above 0")
        return value

    @field_validator("invocation")
    @classmethod
    def _said(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("an adapter cannot be invoked by nothing")
        return value

    @field_validator("new_tokens", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) and value != "corpus" else value

    @field_validator("new_tokens")
    @classmethod
    def _spelled(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        if isinstance(value, str):
            return value
        for word in value:
            if not word or word != word.strip():
                raise ValueError(f"the token {word!r} is empty or has white space at its ends")
        if len(set(value)) != len(value):
            raise ValueError("a token is named twice")
        return value


def require_meaning(recipe: "Recipe") -> None:
    """Refuse a recipe whose keys contradict each other.

    Raises:
        InputError: the first contradiction, with its reason.
    """
    for keys, reason in _contradictions(recipe):
        raise InputError(f"{keys} do not go together: {reason}", "Leave one of the two out")


def _contradictions(recipe: "Recipe") -> Iterator[tuple[str, str]]:
    kind, targets = recipe.init, set(recipe.targets)
    ends = sorted(targets & {"embed", "head"})
    moves = kind != "default"
    begins = f"init: {kind}"
    if recipe.quantization and kind not in ("default", "eva"):
        yield f"quantization and {begins}", "it begins with the base's weights, which 4 bits lack"
    if recipe.dora and kind in (*IN_THE_BASE, "orthogonal"):
        yield f"dora and {begins}", "the lengths that DoRA trains are those of the base alone"
    if recipe.rank_pattern and kind == "eva":
        yield f"rank_pattern and {begins}", "EVA gives the ranks by the variance it explains"
    if kind == "orthogonal" and any(r % 2 for r in (recipe.rank, *recipe.rank_pattern.values())):
        yield "init: orthogonal and an odd rank", "it splits the ranks in two halves"
    if "embed" in targets and moves:
        yield f"target embed and {begins}", "it is defined for linear layers"
    if recipe.new_tokens and kind == "eva":
        yield f"new_tokens and {begins}", "EVA reads what goes into linear layers alone"
    if recipe.new_tokens and ends:
        yield f"new_tokens and target {ends[0]}", "their rows would be trained twice"
    yield from _of_the_objective(recipe)
    yield from _of_experts(recipe, targets)
    yield from _of_the_invocation(recipe, ends)


def _of_the_objective(recipe: "Recipe") -> Iterator[tuple[str, str]]:
    guards, objective = recipe.guards, recipe.objective
    if objective in ("dpo", "distill"):
        why = "they are defined for rows that are learned as they stand"
        unread = {"kl": guards.kl, "replay": guards.replay, "token_mask": guards.token_mask}
    elif recipe.trains_the_base:
        why = "the base itself is trained, and there is no gate to close"
        unread = {"kl": guards.kl, "replay": guards.replay}
    else:
        return
    for key, value in (unread | {"norm": guards.norm}).items():
        if value is not None:
            yield f"guards.{key} and objective: {objective}", why


def _of_experts(recipe: "Recipe", targets: set[str]) -> Iterator[tuple[str, str]]:
    if "experts" not in targets:
        return
    why = "PEFT adds to the experts' weights as a whole"
    if recipe.dropout:
        yield "target experts and dropout", why
    if recipe.dora:
        yield "target experts and dora", why
    if recipe.init != "default":
        yield f"target experts and init: {recipe.init}", why
    if recipe.invocation:
        yield "target experts and invocation", f"{why}, for all tokens"
    if recipe.quantization:
        yield "target experts and quantization", "the experts' weights are not held in 4 bits"


def _of_the_invocation(recipe: "Recipe", ends: list[str]) -> Iterator[tuple[str, str]]:
    if recipe.invocation is None:
        return
    if recipe.dora:
        yield "invocation and dora", "PEFT defines no DoRA that waits"
    if ends:
        yield f"invocation and target {ends[0]}", "it waits in the layers of the blocks alone"
    if recipe.new_tokens:
        yield "invocation and new_tokens", "a token's row is the same wherever the token stands"
