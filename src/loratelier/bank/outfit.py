"""Outfits: everything that a set of adapters needs at the model's layers, ready to be put on."""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from loratelier.adapter import Adapter
from loratelier.bank.experts import Experts, Update, update_of
from loratelier.bank.gates import Gates
from loratelier.bank.lowrank import LowRank
from loratelier.bank.rows import ByGroup, ByRow, arrange, wearers
from loratelier.bank.stack import Stack, build, layers_of
from loratelier.bank.tiers import Tiers
from loratelier.bank.whole import Whole, twin
from loratelier.bank.window import Watch
from loratelier.kit.errors import InputError

_KEPT = 8  # outfits of the latest mixes; building one takes about as long as a token


@dataclass
class Outfit:
    """The stacks, modules and updates of one set of adapters, and the hooks while it is on."""

    model: nn.Module
    names: tuple[str, ...]
    roomy: bool  # memory is not budgeted, so that rows may have copies of their adapters
    stacks: Mapping[str, Stack]
    twins: Mapping[str, Mapping[str, nn.Module]]  # module -> adapter -> its own
    updates: Mapping[str, list[Update]]  # module of parameters -> updates
    _hooks: list[RemovableHandle] = field(default_factory=list)
    _forwards: list[tuple[nn.Module, Any]] = field(default_factory=list)
    # How rows were told apart last: a batch that goes on with the same rows finds it again.
    _apart: dict[str, tuple[tuple[int, ...], ByRow | ByGroup]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """How many bytes the outfit takes."""
        copies = sum(rows.nbytes for _, rows in self._apart.values())
        stacks = sum(stack.nbytes for stack in self.stacks.values())
        modules = [each for made in self.twins.values() for each in made.values()]
        wholes = sum(p.nbytes for module in modules for p in module.parameters())
        updates = sum(update.nbytes for each in self.updates.values() for update in each)
        return copies + stacks + wholes + updates

    def put_on(self, gates: Gates, watch: Watch) -> None:
        """Hook the outfit to the model, behind the gates of a mix."""
        model = self.model

        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            watch.enter(args, kwargs, needs_ids=gates.needs_ids)

        def leave(_module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
            watch.leave()

        hooks = self._hooks
        hooks.append(model.register_forward_pre_hook(enter, with_kwargs=True))
        hooks.append(model.register_forward_hook(leave, always_call=True))
        for site, stack in self.stacks.items():
            module = model.get_submodule(site)
            hook = LowRank(site, stack, gates, watch, self._told_apart(site, stack, gates))
            hooks.append(module.register_forward_hook(hook))
        for site, twins in self.twins.items():
            module = model.get_submodule(site)
            whole = Whole(site, twins, gates, watch)
            hooks.append(module.register_forward_hook(whole, with_kwargs=True))
        for site, updates in self.updates.items():
            module = model.get_submodule(site)
            self._forwards.append((module, module.__dict__.get("forward")))
            module.forward = Experts(module, updates, gates, watch)

    def _told_apart(self, site: str, stack: Stack, gates: Gates) -> ByRow | ByGroup | None:
        worn = None if stack.embedding else wearers(gates, stack)
        if worn is None:
            return None
        if site not in self._apart or self._apart[site][0] != worn:
            self._apart[site] = (worn, arrange(stack, worn, copies=self.roomy))
        return self._apart[site][1]

    def take_off(self) -> None:
        """Unhook it; the model is as it was."""
        for handle in self._hooks:
            handle.remove()
        for module, before in self._forwards:
            del module.__dict__["forward"]
            if before is not None:  # somebody else's, as accelerate's
                module.__dict__["forward"] = before
        self._hooks, self._forwards = [], []


class Outfits:
    """The outfits of the latest mixes, within the budget of the resident tier."""

    def __init__(self, model: nn.Module, tiers: Tiers) -> None:
        self._model = model
        self._tiers = tiers
        self._outfits: OrderedDict[tuple[str, ...], Outfit] = OrderedDict()

    def of(self, names: tuple[str, ...], in_use: Collection[tuple[str, ...]]) -> Outfit:
        """Return the outfit of a set of adapters, built if it is not at hand.

        Raises:
            InputError: the adapters in use exceed the resident budget by themselves.
        """
        counts = self._tiers.counts
        adapters = self._tiers.wear(names)
        if names in self._outfits:
            counts.stacks_reused += 1
        else:
            roomy = self._tiers.resident_bytes is None
            self._outfits[names] = build_outfit(self._model, adapters, roomy=roomy)
            counts.stacks_built += 1
        self._outfits.move_to_end(names)
        self.make_room(in_use)
        over = self._tiers.exceeded_by(self._bytes())
        if over:
            raise InputError(
                f"Wearing {', '.join(names)} takes {over:,} bytes more than the resident budget",
                "Raise resident_bytes, or wear fewer at once",
            )
        return self._outfits[names]

    def make_room(self, in_use: Collection[tuple[str, ...]]) -> None:
        """Let go of outfits, and then of adapters, that are not in use and exceed the budget.

        ``in_use`` are the sets of adapters that active mixes wear.
        """
        for names in list(self._outfits):
            within = len(self._outfits) <= _KEPT and not self._tiers.exceeded_by(self._bytes())
            if within:
                break
            if names not in in_use:
                del self._outfits[names]
                self._tiers.counts.stacks_evicted += 1
        worn = {name for names in in_use for name in names}
        self._tiers.make_room(worn=worn, stack_bytes=self._bytes())

    def forget(self, name: str) -> None:
        """Let go of every outfit that an adapter is part of."""
        for names in [each for each in self._outfits if name in each]:
            del self._outfits[names]

    def clear(self) -> None:
        """Let go of all of them."""
        self._outfits.clear()

    def _bytes(self) -> int:
        return sum(outfit.nbytes for outfit in self._outfits.values())


def build_outfit(model: nn.Module, adapters: Mapping[str, Adapter], *, roomy: bool) -> Outfit:
    """Prepare what a set of adapters needs at each layer."""
    worn = list(adapters.values())
    sites = dict.fromkeys(site for adapter in worn for site in layers_of(adapter, model))
    twins: dict[str, dict[str, nn.Module]] = {}
    updates: dict[str, list[Update]] = {}
    for name, adapter in adapters.items():
        for site, state in adapter.extras.modules.items():
            twins.setdefault(site, {})[name] = twin(model.get_submodule(site), state)
        if adapter.extras.experts:
            for fit in adapter.require_sites(model):
                module = model.get_submodule(fit.module)
                pair = adapter.extras.experts[fit.site]
                updates.setdefault(fit.module, []).append(update_of(name, fit, pair, module))
    return Outfit(
        model=model,
        names=tuple(adapters),
        roomy=roomy,
        stacks={site: build(site, worn, model) for site in sites},
        twins=twins,
        updates=updates,
    )
