"""Which layers of a hollow model wear LoRA, by the recipe's short names."""

from collections.abc import Sequence
from typing import Any

from loratelier.base.layers import block_of, ends_by_role, expert_parameters, layers
from loratelier.kit.errors import InputError, did_you_mean

# What the recipe's short names are called in the models that name them apart.
SHORT_NAMES = {
    "q": "q_proj",
    "k": "k_proj",
    "v": "v_proj",
    "o": "o_proj",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
}


def linear_sites(
    model: Any,
    rank: int,
    targets: Sequence[str] | None = None,
    chosen: Sequence[int] | None = None,
) -> dict[str, int]:
    """Return the layers that wear LoRA, by name, with its rank.

    Args:
        model: a hollow model.
        rank: of all.
        targets: short names, ``embed``, ``head``, ``all``, or how layers are called at the end of
            their names; without it all that the base has of the seven, or, where it has none of
            them, every linear layer of its blocks.
        chosen: the blocks' numbers from 0; without it all.

    Raises:
        InputError: a target or a layer that the model does not have; experts, whose adapters PEFT
            adds to the experts' weights as a whole.
    """
    count = model.config.get_text_config().num_hidden_layers
    wrong = [number for number in chosen or () if not 0 <= number < count]
    if wrong:
        raise InputError(f"The base has no layer {wrong[0]}", f"Its layers are 0 to {count - 1}")
    inside = [
        name
        for name, layer in layers(model).items()
        if layer.kind == "linear" and (number := block_of(name)) is not None
        if chosen is None or number in chosen
    ]
    last, outer = _wanted(model, targets)
    inner = [name for name in inside if name.rsplit(".", 1)[-1] in last]
    return dict.fromkeys([*inner, *outer], rank)


def _wanted(model: Any, targets: Sequence[str] | None) -> tuple[set[str], list[str]]:
    """Return the last names within blocks, and the whole names of the ends."""
    present = {
        name.rsplit(".", 1)[-1]
        for name, layer in layers(model).items()
        if layer.kind == "linear" and block_of(name) is not None
    }
    seven = present & set(SHORT_NAMES.values())
    if targets is None:
        return seven or present, []
    ends = ends_by_role(model)
    inner: set[str] = set()
    outer: list[str] = []
    for target in targets:
        if target == "experts" and expert_parameters(model):
            raise InputError(
                "What adapters of experts hold is not planned",
                "Leave the target 'experts' out: what is planned then is the least",
            )
        if target == "all" and seven:
            inner |= seven
        elif target in ends:
            outer.append(ends[target])
        elif SHORT_NAMES.get(target, target) in present:
            inner.add(SHORT_NAMES.get(target, target))
        else:
            known = {short for short, name in SHORT_NAMES.items() if name in present}
            raise InputError(
                f"The base has no linear layer '{target}' to adapt",
                did_you_mean(target, present | known | ends.keys()),
            )
    return inner, outer
