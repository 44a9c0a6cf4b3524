"""The hook of one linear layer: ``y + g (up^T (down x))`` for all rows, tokens and adapters."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loratelier.bank.gates import Gates
from loratelier.bank.rows import ByGroup, ByRow
from loratelier.bank.stack import Stack
from loratelier.bank.window import Watch, Window
from loratelier.kit.errors import InputError


class LowRank:
    """A forward hook that adds what a stack says.

    The update is computed in float32 and rounded once, into the dtype of the layer's output.
    """

    def __init__(
        self,
        site: str,
        stack: Stack,
        gates: Gates,
        watch: Watch,
        apart: ByRow | ByGroup | None,
    ) -> None:
        self._site = site
        self._stack = stack
        self._gates = gates
        self._watch = watch
        self._apart = apart
        self._ones = gates.all_ones(site)
        self._chosen: dict[int, Tensor] = {}

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Return the layer's output with the update added."""
        x = args[0]
        if torch.is_grad_enabled():
            return output + self._update(module, x, output).to(output.dtype)
        extra = self._constants(module, x, output)
        if not len(self._stack.up):
            pass  # nothing but biases here
        elif self._apart is not None and self._aligned(x):
            self._apart.add_to(output, _full(x), None if self._ones else self._own_gates(x))
        else:
            hidden = self._hidden(x)
            if output.dtype == torch.float32 and output.is_contiguous():
                flat = output.view(-1, output.shape[-1])
                torch.addmm(flat, hidden.view(-1, hidden.shape[-1]), self._stack.up, out=flat)
            else:
                output.add_(hidden @ self._stack.up)
        return output if extra is None else output.add_(extra)

    def _update(self, module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        extra = self._constants(module, x, output)
        if not len(self._stack.up) and extra is not None:
            return extra
        update = self._hidden(x) @ self._stack.up
        return update if extra is None else update + extra

    def _hidden(self, x: Tensor) -> Tensor:
        """Return ``g (down x)`` for all adapters side by side: [..., ranks]."""
        stack = self._stack
        hidden = F.embedding(x, stack.down) if stack.embedding else F.linear(_full(x), stack.down)
        if self._ones and not self._gates.by_row:
            return hidden
        return hidden * self._coefficients(x, stack.owners)

    def _own_gates(self, x: Tensor) -> Tensor:
        """Return each row's gate for the one adapter that it wears: [rows, tokens or 1]."""
        return self._gates.at(self._site, self._current(x)).sum(-1).to(x.device)

    def _constants(self, module: nn.Module, x: Tensor, output: Tensor) -> Tensor | None:
        """Return what does not go through the low rank: biases, and DoRA's part of the output."""
        stack, extra = self._stack, None
        if stack.factors is not None:
            plain = output.float()
            bias = getattr(module, "bias", None)  # an embedding has none
            if bias is not None:
                plain = plain - bias
            extra = (self._coefficients(x, stack.factor_owners) @ stack.factors) * plain
        if stack.offsets is not None:
            offset = self._coefficients(x, stack.offset_owners) @ stack.offsets
            extra = offset if extra is None else extra + offset
        return extra

    def _coefficients(self, x: Tensor, owners: Tensor) -> Tensor:
        """Return the gates in the shape in which this layer sees its tokens: [..., owners]."""
        gates, window = self._gates, self._current(x)
        chosen = self._chosen.get(id(owners))
        if chosen is None:
            chosen = gates.at(self._site, window).to(owners.device)[..., owners]
            if not gates.by_token and not gates.differentiable:
                self._chosen[id(owners)] = chosen
        if not gates.by_row and not gates.by_token:
            return chosen[0, 0]
        return align(chosen, x, window, self._stack.embedding)

    def _current(self, x: Tensor) -> Window:
        return current(self._watch, self._gates, x, self._site)

    def _aligned(self, x: Tensor) -> bool:
        """Whether the rows of the batch are the first dimension of what the layer sees."""
        if x.ndim != 3 or x.shape[0] != len(self._gates.rows):
            return False
        window = self._watch.window
        return window is None or x.shape[1] == window.tokens


def current(watch: Watch, gates: Gates, x: Tensor, site: str) -> Window:
    """Return the running pass; where only a part of the model runs, what its input shows.

    Raises:
        InputError: gates depend on the token, and the model as a whole is not what was called.
    """
    if watch.window is not None:
        return watch.window
    if gates.by_token:
        raise InputError(
            f"{site} ran outside of the model, where the place in the sequence is not known",
            "Call the model that the bank was made for",
        )
    return Window(x.shape[0], x.shape[1] if x.ndim > 1 else 1, 0, torch.zeros(1, device=x.device))


def align(table: Tensor, x: Tensor, window: Window, indices: bool) -> Tensor:
    """Bring gates [rows or 1, tokens or 1, n] to the leading dimensions of a layer's input.

    Raises:
        InputError: the batch has other rows than the mix, or the layer sees tokens in an order that
            cannot be told.
    """
    lead = list(x.shape if indices else x.shape[:-1])
    rows, tokens, _ = table.shape
    if rows not in (1, window.rows):
        raise InputError(
            f"The mix has {rows} rows and the batch {window.rows}",
            "Give one mix for all rows, or one for each",
        )
    if len(lead) == 1 and lead[0] == window.rows * window.tokens:
        return table.expand(window.rows, window.tokens, -1).reshape(lead[0], -1)
    along = _token_dimension(lead, window, tokens)
    if lead[0] != window.rows or along is None:
        raise InputError(
            f"A layer sees {lead} of {[window.rows, window.tokens]} tokens, in an order that "
            "cannot be told",
            "Give all rows and tokens the same mix, or run the rows one at a time",
        )
    if tokens > 1 and lead[along] != tokens and window.kept is not None:
        table = table[:, window.kept.to(table.device)]
    shape = [1] * len(lead)
    shape[0], shape[along] = table.shape[0], table.shape[1]
    return table.reshape(*shape, -1)


def _token_dimension(lead: list[int], window: Window, tokens: int) -> int | None:
    """Return which dimension of a layer's input counts the tokens; None when it cannot be told."""
    if tokens == 1:
        return 1 if len(lead) > 1 else None
    kept = None if window.kept is None else len(window.kept)
    # A norm of heads sees [rows, tokens, heads] or [rows, heads, tokens].
    fitting = [i for i, size in enumerate(lead) if i and size in (tokens, kept)]
    return fitting[0] if len(fitting) == 1 else None


def _full(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float32 else x.float()
