"""Whether an adapter fits a model: nothing missing, nothing left over, every shape its own.

Loading fails closed. What the config targets and the file lacks would silently stay at the base's
values; what the file holds and the config does not target would silently be left out.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from loratelier.adapter.tensors import NESTED, in_order, weight_digest
from loratelier.base.base import known_fingerprint
from loratelier.base.layers import (
    Layer,
    adds_bias,
    ends,
    find,
    layers,
    module_names,
    tied_output,
)
from loratelier.kit.errors import InputError

if TYPE_CHECKING:
    from loratelier.adapter.adapter import Adapter


@dataclass(frozen=True)
class ExpertFit:
    """One targeted parameter: where it is, and the update that the adapter's pair means for it.

    The pair is A [count * rank, d_in], B [d_out, rank * count]; ``transposed`` says that the model
    stores each expert as [d_in, d_out].
    """

    site: str
    module: str
    parameter: str
    count: int
    rank: int
    scaling: float
    transposed: bool


def require_fit(adapter: "Adapter", model: nn.Module) -> tuple[ExpertFit, ...]:
    """Make sure that an adapter may be worn by a model; return where its expert pairs belong.

    Raises:
        InputError: the model's fingerprint is known and is not the card's; a site, a parameter or a
            bias is missing, left over or misshapen.
    """
    _require_base(adapter, model)
    known = layers(model)
    for site, (down, up) in adapter.tensors.items():
        kind = "embedding" if site in adapter.extras.embeddings else "linear"
        _require_layer(adapter, known.get(site), kind, site, (up.shape[0], down.shape[1]))
    _require_targets(adapter, known, model)
    _require_biases(adapter, model)
    _require_tokens(adapter, model, known)
    _require_modules(adapter, model)
    _require_copies(adapter, model)
    return _experts(adapter, model)


def _refusal(adapter: "Adapter", why: str, mend: str = "") -> InputError:
    return InputError(f"The adapter '{adapter.name}' does not fit: {why}", mend or None)


def _require_base(adapter: "Adapter", model: nn.Module) -> None:
    made_for, given = adapter.card.base.fingerprint, known_fingerprint(model)
    if made_for and given and made_for != given:
        raise InputError(
            f"The adapter '{adapter.name}' was made for the base {adapter.card.base.name} "
            f"({_short(made_for)}), and this base has other weights ({_short(given)})",
            f"Load its own base: {adapter.card.base.spec}",
        )


def _short(fingerprint: str) -> str:
    return fingerprint.removeprefix("sha256:")[:12]


def _require_layer(
    adapter: "Adapter", layer: Layer | None, kind: str, site: str, shape: tuple[int, int]
) -> None:
    if layer is None or layer.kind != kind:
        name = "embedding" if kind == "embedding" else "linear layer"
        raise _refusal(adapter, f"this base has no {name} {site}")
    if (layer.d_out, layer.d_in) != shape:
        raise _refusal(
            adapter,
            f"{site} is {[layer.d_out, layer.d_in]} in this base, and the adapter's update is "
            f"{list(shape)}",
        )


def _require_targets(adapter: "Adapter", known: Mapping[str, Layer], model: Any) -> None:
    """Compare the sites with those that the config's target_modules names, as PEFT reads it."""
    targeted = _targeted(adapter.settings.raw, known, model)
    if targeted is None:
        return
    if missing := in_order(dict.fromkeys(targeted - adapter.tensors.keys())):
        raise _refusal(
            adapter,
            f"its config targets {missing[0]}, and the file has no tensors for it",
            "Fetch the whole adapter",
        )
    tied = ends(model) if adapter.settings.raw.get("ensure_weight_tying") else set()
    if extra := in_order(dict.fromkeys(adapter.tensors.keys() - targeted - tied)):
        raise _refusal(
            adapter,
            f"the file has tensors for {extra[0]}, which its config does not target",
            "Correct target_modules in its config",
        )


def _targeted(raw: Mapping[str, Any], known: Mapping[str, Layer], model: Any) -> set[str] | None:
    """Return the layers that a config targets; None when it leaves the choice to PEFT."""
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    targets = raw.get("target_modules")
    if targets is None:
        return set() if raw.get("target_parameters") else None
    if targets == "all-linear":
        linear = {name for name, each in known.items() if each.kind == "linear"}
        return linear - ends(model)
    keys = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
    chosen = {key: raw.get(key) for key in (*keys, "modules_to_save")}
    try:
        config = LoraConfig(**chosen)
        return {name for name in known if _found(check_target_module_exists(config, name))}
    except (ValueError, TypeError, re.error) as error:
        what = f"The adapter's config targets no modules that can be read ({error})"
        raise InputError(what) from error


def _found(answer: object) -> bool:
    # A module that PEFT leaves out by name comes back as an object of its own, which is false.
    return bool(answer)


def _require_biases(adapter: "Adapter", model: nn.Module) -> None:
    settings, biases = adapter.settings, adapter.extras.biases
    for name, bias in biases.items():
        module = find(model, name)
        if not adds_bias(module):
            raise _refusal(adapter, f"this base has no {name} that adds a bias")
        _same_shape(adapter, f"{name}.bias", bias, module.bias)  # type: ignore[union-attr,arg-type]
    if settings.bias == "none":
        return
    owners = {
        name.removesuffix(".bias") for name, _ in model.named_parameters() if name.endswith(".bias")
    }
    if settings.bias == "lora_only":
        owners &= adapter.tensors.keys()
    saved = adapter.extras.modules
    inside = {name for name in owners if any(f"{name}.".startswith(f"{each}.") for each in saved)}
    if missing := in_order(dict.fromkeys(owners - inside - biases.keys())):
        raise _refusal(adapter, f"its config trains biases, and the file has none for {missing[0]}")


def _same_shape(adapter: "Adapter", name: str, given: Tensor, own: Tensor) -> None:
    if given.shape != own.shape:
        raise _refusal(
            adapter,
            f"{name} is {list(own.shape)} in this base, and {list(given.shape)} in the file",
        )


def _require_tokens(adapter: "Adapter", model: Any, known: Mapping[str, Layer]) -> None:
    settings, trained = adapter.settings, adapter.extras.tokens
    for name, rows in trained.items():
        layer = known.get(name)
        if layer is None:
            raise _refusal(adapter, f"this base has no embedding {name}")
        width, vocabulary = _row_form(layer)
        if rows.shape[1] != width:
            raise _refusal(adapter, f"{name} has rows of {width}, and the file of {rows.shape[1]}")
        if max(settings.tokens_of(name), default=0) >= vocabulary:
            raise _refusal(
                adapter,
                f"it trains token {max(settings.tokens_of(name))}, and {name} has {vocabulary}",
                "Give the base its tokens first: with_tokens(base, adapter.card.tokens)"
                if adapter.card.tokens
                else "Resize the base's vocabulary first",
            )
    expected = settings.tokens if isinstance(settings.tokens, Mapping) else {}
    tied = {tied_output(model, name) for name in trained}
    for wanted in expected:
        named = [name for name in (*trained, *tied) if name and f".{name}".endswith(f".{wanted}")]
        if not named:
            raise _refusal(adapter, f"its config trains tokens of {wanted}, and the file has none")
    if settings.tokens and not trained:
        raise _refusal(adapter, "its config trains tokens, and the file has no rows for them")


def _row_form(layer: Layer) -> tuple[int, int]:
    """Return the length and the number of the rows of an embedding or output layer."""
    if layer.kind == "embedding":
        return layer.d_out, layer.d_in
    return layer.d_in, layer.d_out


def _require_modules(adapter: "Adapter", model: nn.Module) -> None:
    saved = adapter.extras.modules
    for name, state in saved.items():
        if not name.endswith(adapter.settings.modules_to_save) and name not in ends(model):
            raise _refusal(adapter, f"the file has {name}, which its config does not save")
        module = find(model, name)
        if module is None:
            raise _refusal(adapter, f"this base has no module {name}")
        own = module.state_dict()
        if odd := sorted(own.keys() ^ state.keys()):
            what = "lacks" if odd[0] in own else "has beside this base's"
            raise _refusal(adapter, f"the file {what} {name}.{odd[0]}")
        for key, value in state.items():
            _same_shape(adapter, f"{name}.{key}", value, own[key])
    for wanted in adapter.settings.modules_to_save:
        named = [name for name in module_names(model) if name.endswith(wanted)]
        outer = [name for name in named if not _within(name, saved)]
        if not named or outer:
            where = outer[0] if outer else wanted
            raise _refusal(adapter, f"its config saves the module {where}, and the file has none")


def _within(name: str, modules: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def _require_copies(adapter: "Adapter", model: nn.Module) -> None:
    """PEFT saves the base's weight beside an embedding's pair; it must be this base's own."""
    for name, digests in adapter.extras.copies.items():
        module = find(model, name)
        weight = None if module is None else getattr(module, "weight", None)
        if not isinstance(weight, Tensor):
            raise _refusal(adapter, f"this base has no weight {name}")
        # In the narrower of the two dtypes both say the same, if they were once the same.
        narrow = {torch.bfloat16, torch.float16}
        dtype = weight.dtype if weight.dtype in narrow else torch.float32
        own = next((each for each in (str(dtype), *digests) if each in digests), None)
        if own is None:
            continue
        if digests[own] != weight_digest(weight, getattr(torch, own.removeprefix("torch."))):
            raise _refusal(
                adapter,
                f"it carries a weight of its own for {name}, other than this base's",
                "Train it with modules_to_save, or save it with save_embedding_layers=False",
            )


def _experts(adapter: "Adapter", model: nn.Module) -> tuple[ExpertFit, ...]:
    fits = []
    for module_name in in_order(
        dict.fromkeys(s.replace(NESTED, "") for s in adapter.extras.experts)
    ):
        module = find(model, module_name)
        if module is None:
            raise _refusal(adapter, f"this base has no module {module_name}")
        named = [
            name
            for name, _ in module.named_parameters(recurse=False)
            if any(
                f".{module_name}.{name}".endswith(f".{target}")
                for target in adapter.settings.target_parameters
            )
        ]
        # PEFT wraps the first parameter first, so that the last one is the outermost.
        sites = [module_name + NESTED * depth for depth in reversed(range(len(named)))]
        held = {s for s in adapter.extras.experts if s.replace(NESTED, "") == module_name}
        if held != set(sites):
            raise _refusal(
                adapter,
                f"its config targets {len(named)} parameters of {module_name}, and the file has "
                f"{len(held)}",
            )
        fits += [
            _expert(adapter, module, module_name, name, site)
            for name, site in zip(named, sites, strict=True)
        ]
    _require_parameters(adapter, model, {f"{fit.module}.{fit.parameter}" for fit in fits})
    return tuple(fits)


def _require_parameters(adapter: "Adapter", model: nn.Module, held: set[str]) -> None:
    for target in adapter.settings.target_parameters:
        named = {n for n, _ in model.named_parameters() if f".{n}".endswith(f".{target}")}
        if not named:
            raise _refusal(adapter, f"this base has no parameter {target}")
        if missing := in_order(dict.fromkeys(named - held)):
            raise _refusal(
                adapter, f"its config targets {missing[0]}, and the file has no tensors for it"
            )


def _expert(
    adapter: "Adapter", module: nn.Module, name: str, parameter: str, site: str
) -> ExpertFit:
    shape = tuple(module.get_parameter(parameter).shape)
    full = f"{name}.{parameter}"
    if len(shape) not in (2, 3):
        raise _refusal(adapter, f"{full} has {len(shape)} dimensions, and 2 or 3 are carried out")
    # Some models store experts as [d_in, d_out] and say so in this attribute, which PEFT reads too.
    transposed = len(shape) == 3 and bool(getattr(module, "is_transposed", False))
    count = shape[0] if len(shape) == 3 else 1
    d_out, d_in = (shape[-1], shape[-2]) if transposed else (shape[-2], shape[-1])
    rank = adapter.settings.rank_at(full)
    down, up = adapter.extras.experts[site]
    if tuple(down.shape) != (count * rank, d_in) or tuple(up.shape) != (d_out, rank * count):
        raise _refusal(
            adapter,
            f"{full} is {list(shape)} in this base, and the adapter has A {list(down.shape)}, "
            f"B {list(up.shape)} for rank {rank}",
        )
    scaling = adapter.settings.scaling_at(full)
    if not math.isfinite(scaling):
        raise _refusal(adapter, f"the scaling of {full} is no number")
    return ExpertFit(site, name, parameter, count, rank, scaling, transposed)
