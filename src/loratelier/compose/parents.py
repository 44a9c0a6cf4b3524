"""Which adapters may meet: of one base, with low-rank pairs and nothing else."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from loratelier.adapter import Adapter, BaseRef
from loratelier.kit.errors import InputError

# Site -> (A [r, d_in], s B [d_out, r]) in float64.
Pairs = Mapping[str, tuple[Tensor, Tensor]]


def require_alike(adapters: Sequence[Adapter]) -> None:
    """Make sure that adapters can be added to each other.

    Raises:
        InputError: one holds what is no low-rank pair of a linear layer, two were made for
            different bases, or a site has two shapes.
    """
    for adapter in adapters:
        _require_plain(adapter)
    made_for: dict[str, Adapter] = {}
    for adapter in adapters:
        if adapter.card.base.fingerprint:
            made_for.setdefault(adapter.card.base.fingerprint, adapter)
    if len(made_for) > 1:
        one, other = list(made_for.values())[:2]
        raise InputError(
            f"'{one.name}' was made for the base {one.card.base.name} and '{other.name}' for "
            f"{other.card.base.name}, which has other weights",
            "Take adapters of one base",
        )
    _require_shapes(adapters)


def _require_plain(adapter: Adapter) -> None:
    extras = adapter.extras
    held = {
        "a DoRA adapter (magnitudes)": extras.magnitudes,
        "biases beside its pairs": extras.biases or extras.up_biases,
        "new or trained tokens": extras.tokens or adapter.card.tokens,
        "whole modules": extras.modules,
        "pairs for experts": extras.experts,
        "a pair for an embedding": extras.embeddings,
        "invocation tokens that it waits for": adapter.settings.invocation,
    }
    for what, there in held.items():
        if there:
            verb = "is" if what.startswith("a DoRA") else "holds"
            raise InputError(
                f"'{adapter.name}' {verb} {what}, which is no sum of low-rank updates",
                "Only plain LoRA adapters of linear layers are merged and compared",
            )


def _require_shapes(adapters: Sequence[Adapter]) -> None:
    shapes: dict[str, tuple[Adapter, list[int]]] = {}
    for adapter in adapters:
        for site, (down, up) in adapter.tensors.items():
            shape = [up.shape[0], down.shape[1]]
            other, known = shapes.setdefault(site, (adapter, shape))
            if known != shape:
                raise InputError(
                    f"{site} is {known} for '{other.name}' and {shape} for '{adapter.name}'",
                    "Take adapters of one base",
                )


def pairs_of(adapter: Adapter) -> Pairs:
    """Return the pairs in float64 on the CPU, with the scaling in B."""
    return {
        site: (down.detach().cpu().double(), adapter.scaling(site) * up.detach().cpu().double())
        for site, (down, up) in adapter.tensors.items()
    }


def common_base(adapters: Sequence[Adapter]) -> BaseRef:
    """Return the base of what is made of adapters; proven only if every one of them is."""
    bases = [adapter.card.base for adapter in adapters]
    if all(base.fingerprint for base in bases):
        return BaseRef(fingerprint=bases[0].fingerprint, spec=bases[0].spec, name=bases[0].name)
    named = (adapter.settings.raw.get("base_model_name_or_path") for adapter in adapters)
    spec = next((base.spec for base in bases if base.spec), None) or next(filter(None, named), None)
    return BaseRef(spec=spec)
