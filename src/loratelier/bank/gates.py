"""Gates: what a mix means.

Every adapted linear layer computes ``y = W x + sum_k g_k s_k B_k (A_k x)``. A *mix* says what the
gates ``g_k`` are. It is one of

- ``None``: every gate closed, the base as it is;
- a name: that adapter's gate at 1;
- ``{name: gate}``: several adapters, each at its gate;
- a sequence of those, one for each row of the batch.

A gate is a number, a tensor of no dimensions (with a gradient if wanted), or a mapping from site to
one of these, where a site that is not named stays closed.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from loratelier.kit.errors import InputError, did_you_mean

Scalar = float | Tensor
Gate = Scalar | Mapping[str, Scalar]
RowMix = None | str | Mapping[str, Gate]
Mix = RowMix | Sequence[RowMix]


def normalize(mix: Mix, known: Iterable[str]) -> list[dict[str, Gate]]:
    """Return the mix as one ``{name: gate}`` for each row; a single one stands for all rows.

    Raises:
        InputError: a name that the bank does not hold, or a gate that is not a finite number.
    """
    names = list(known)
    if mix is None or isinstance(mix, str | Mapping):
        return [_row(mix, names)]
    if not mix:
        raise InputError("The mix has no rows", "Give one entry for each row of the batch")
    return [_row(row, names) for row in mix]


def _row(mix: RowMix, known: list[str]) -> dict[str, Gate]:
    if mix is None:
        return {}
    gates: dict[str, Gate] = {mix: 1.0} if isinstance(mix, str) else dict(mix)
    for name, gate in gates.items():
        if name not in known:
            raise InputError(f"The bank holds no adapter '{name}'", did_you_mean(name, known))
        for value in gate.values() if isinstance(gate, Mapping) else [gate]:
            _check(name, value)
    return gates


def _check(name: str, value: Scalar) -> None:
    if isinstance(value, Tensor):
        if value.ndim != 0:
            raise InputError(
                f"The gate of '{name}' is a tensor of shape {tuple(value.shape)}",
                "A gate is a number or a tensor of no dimensions; rows are a sequence of mixes",
            )
        return
    if not torch.isfinite(torch.tensor(float(value))):
        raise InputError(f"The gate of '{name}' is {value}", "A gate is a finite number")


def at_site(gate: Gate, site: str) -> Scalar:
    """Return the gate's value at one site."""
    return gate.get(site, 0.0) if isinstance(gate, Mapping) else gate


def table(rows: list[dict[str, Gate]], names: Sequence[str], site: str) -> Tensor:
    """Return the gates of ``names`` at ``site``: float32, shape [rows, names].

    Gradients flow to gates that are tensors.
    """
    values = [[at_site(row.get(name, 0.0), site) for name in names] for row in rows]
    if any(isinstance(value, Tensor) for row in values for value in row):
        return torch.stack([torch.stack([_tensor(value) for value in row]) for row in values])
    return torch.tensor(values, dtype=torch.float32)


def _tensor(value: Scalar) -> Tensor:
    return value.float() if isinstance(value, Tensor) else torch.tensor(float(value))
