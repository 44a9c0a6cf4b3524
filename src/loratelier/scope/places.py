"""Where in the model a site is: its layer, and which module of the layer."""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

By = Literal["site", "layer", "module"]
OUTSIDE = "outside"  # stands for the layer of an embedding or an output layer


def layer_of(site: str) -> int | None:
    """Return the number of the layer that a site is in; None outside of the layers."""
    found = re.search(r"\.(\d+)\.", site)
    return int(found[1]) if found else None


def module_of(site: str) -> str:
    """Return what a site is called within its layer: ``mlp.down_proj``; outside, its whole name."""
    return re.sub(r"^.*?\.\d+\.", "", site, count=1)


def groups(sites: Iterable[str], by: By) -> dict[str, tuple[str, ...]]:
    """Return sites gathered by themselves, by layer ("0", "1", ..., "outside") or by module."""
    gathered: dict[str, list[str]] = {}
    for site in sites:
        gathered.setdefault(_label(site, by), []).append(site)
    return {label: tuple(members) for label, members in gathered.items()}


def sums(values: Mapping[str, float], by: By) -> dict[str, float]:
    """Return the sums of numbers by site over the same groups."""
    return {
        label: sum(values[site] for site in members)
        for label, members in groups(values, by).items()
    }


def _label(site: str, by: By) -> str:
    if by == "site":
        return site
    if by == "module":
        return module_of(site)
    layer = layer_of(site)
    return OUTSIDE if layer is None else str(layer)
