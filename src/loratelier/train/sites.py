"""Where a recipe's adapter sits in a base: targets, layers, patterns, by the base's names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from torch import nn

from loratelier.adapter.config import by_pattern
from loratelier.base import Base
from loratelier.base.layers import block_of, ends_by_role, expert_parameters, layers
from loratelier.base.plan.sites import SHORT_NAMES
from loratelier.kit.errors import InputError, did_you_mean
from loratelier.kit.progress import remark
from loratelier.train.recipe import ALL_TARGETS, Recipe

_ENDS = ("embed", "head")
N = TypeVar("N", bound=float)


@dataclass(frozen=True)
class Sites:
    """What PEFT is told of where and how large.

    ``modules`` and ``parameters`` are names as PEFT's ``target_modules`` and ``target_parameters``
    match them; ``layers`` its ``layers_to_transform``. The patterns are regular expressions.
    """

    modules: list[str]
    layers: list[int] | None = None
    parameters: list[str] = field(default_factory=list)
    ranks: dict[str, int] = field(default_factory=dict)
    alphas: dict[str, float] = field(default_factory=dict)


def sites_of(base: Base, recipe: Recipe) -> Sites:
    """Find the recipe's targets in a base.

    Raises:
        InputError: a target or a layer number that the base does not have, or a pattern that fits
            none of the chosen layers.
    """
    _check_layers(base, recipe)
    model, shorts = base.model, _shorts(base)
    inner = [_named(base, target, shorts) for target in _wanted(base, recipe)]
    outer = [shorts[target] for target in recipe.targets if target in _ENDS]
    parameters = expert_parameters(model) if "experts" in recipe.targets else []
    if recipe.layers is None:
        chosen = _all_named(model, inner)
        modules, layers_ = [*inner, *outer], None
    else:
        chosen = [n for n in _all_named(model, inner) if block_of(n) in recipe.layers]
        parameters = [n for n in parameters if block_of(n) in recipe.layers]
        # PEFT would look for a layer's number in the names of the ends, too, and find none.
        modules = [*chosen, *outer] if outer else inner
        layers_ = None if outer else list(recipe.layers)
    every = [*chosen, *outer, *parameters]
    return Sites(
        modules=modules,
        layers=layers_ if inner else None,
        parameters=parameters,
        ranks=_patterns("rank_pattern", recipe.rank_pattern, shorts, every),
        alphas=_patterns("alpha_pattern", recipe.alpha_pattern, shorts, every),
    )


def linear_names(model: nn.Module) -> set[str]:
    """Return the last names of the linear layers inside the model's blocks."""
    linear = (name for name, layer in layers(model).items() if layer.kind == "linear")
    return {name.rsplit(".", 1)[-1] for name in linear if block_of(name) is not None}


def _shorts(base: Base) -> dict[str, str]:
    """Return the short names that mean something in a base, and its own for them."""
    present = linear_names(base.model)
    found = {short: name for short, name in SHORT_NAMES.items() if name in present}
    return found | ends_by_role(base.model)


def _wanted(base: Base, recipe: Recipe) -> list[str]:
    """Return the targets within blocks; of 'all', those that the base has."""
    inner = [t for t in recipe.targets if t not in (*_ENDS, "experts")]
    experts = expert_parameters(base.model)
    if "experts" in recipe.targets and not experts:
        raise InputError(f"{base.name} has no experts to adapt", "Leave the target 'experts' out")
    if set(ALL_TARGETS) <= set(inner) and experts:
        # The feed-forward layers of a mixture of experts are not linear layers of their own.
        present = linear_names(base.model)
        missing = [t for t in ALL_TARGETS if SHORT_NAMES[t] not in present]
        if missing and "experts" not in recipe.targets:
            remark(
                f"{base.name} has its {', '.join(missing)} in experts, which are not adapted; "
                "--set 'targets=all,experts' adapts them too"
            )
        inner = [t for t in inner if t not in missing]
    return inner


def _named(base: Base, target: str, shorts: Mapping[str, str]) -> str:
    present = linear_names(base.model)
    name = SHORT_NAMES.get(target, target)
    if name not in present:
        raise InputError(
            f"{base.name} has no linear layer '{target}' to adapt",
            did_you_mean(target, present | shorts.keys()),
        )
    return name


def _all_named(model: nn.Module, last: Iterable[str]) -> list[str]:
    wanted = set(last)
    found = (name for name, layer in layers(model).items() if layer.kind == "linear")
    inside = (name for name in found if block_of(name) is not None)
    return [name for name in inside if name.rsplit(".", 1)[-1] in wanted]


def _patterns(
    key: str, given: Mapping[str, N], shorts: Mapping[str, str], sites: Iterable[str]
) -> dict[str, N]:
    """Write short names out; a pattern that fits none of the sites is refused."""
    found: dict[str, N] = {}
    known = list(sites)
    for pattern, number in given.items():
        full = r".*experts\..+" if pattern == "experts" else shorts.get(pattern, pattern)
        if not any(by_pattern({full: 1.0}, site, 0.0) for site in known):
            raise InputError(
                f"{key} names '{pattern}', which fits none of the {len(known)} adapted layers",
                f"They are called as {known[0]}" if known else None,
            )
        found[full] = number
    return found


def _check_layers(base: Base, recipe: Recipe) -> None:
    count = base.model.config.get_text_config().num_hidden_layers
    wrong = [layer for layer in recipe.layers or () if not 0 <= layer < count]
    if wrong:
        raise InputError(f"{base.name} has no layer {wrong[0]}", f"Its layers are 0 to {count - 1}")
