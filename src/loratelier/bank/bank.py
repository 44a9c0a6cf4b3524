"""The bank: many adapters over one model, worn by setting gates.

The model is touched only while a mix is active: hooks on the adapted layers are installed on the
way into :meth:`AdapterBank.activate` and removed on the way out, so that with nothing active the
model is the very object that was handed in.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from torch import nn

from loratelier.adapter import Adapter
from loratelier.bank.gates import FromToken, Gate, Gates, Mix, normalize
from loratelier.bank.merge import Merge, merge_into
from loratelier.bank.outfit import Outfit, Outfits
from loratelier.bank.stack import followers
from loratelier.bank.tiers import Counts, Held, Tiers
from loratelier.bank.window import Watch
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark


@dataclass(frozen=True)
class _Worn:
    """One active mix."""

    gates: Gates

    @property
    def names(self) -> tuple[str, ...]:
        return self.gates.names


class AdapterBank:
    """Holds adapters over ``model`` and opens their gates.

    Carries out what PEFT writes for LoRA: rsLoRA, rank and alpha patterns, layers, Conv1D, biases,
    embeddings and output layers, trained token rows, whole modules, parameters of experts, aLoRA,
    and DoRA outside of mixtures.

    Args:
        model: any transformers causal model; its weights are written by :meth:`merge` alone.
        resident_bytes: how much the adapters beside the model and what is built of them may take;
            None for no limit. What was worn longest ago moves to the host's memory.
        host_bytes: how much adapters in the host's memory may take; None for no limit. What was
            added as a folder moves to disk, and is read again when it is worn.

    A bank is used from one thread at a time, as the model under it is. Used as a context manager it
    is closed at the end.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        resident_bytes: int | None = None,
        host_bytes: int | None = None,
    ) -> None:
        self.model = model
        self._tiers = Tiers(model, resident_bytes, host_bytes)
        self._outfits = Outfits(model, self._tiers)
        self._worn: list[_Worn] = []
        self._outfit: Outfit | None = None
        self._watch = Watch()
        self._merge: Merge | None = None

    def __enter__(self) -> "AdapterBank":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the model as it was handed in, and let go of every adapter."""
        self._worn = []
        self._undress()
        if self._merge is not None:
            self.unmerge()
        for name in self.names:
            self._tiers.drop(name)
        self._outfits.clear()

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters held, in the order in which they were added."""
        return self._tiers.names

    @property
    def held(self) -> Mapping[str, Held]:
        """Every adapter with its tier, size, and whether it is proven for this base."""
        return self._tiers.held()

    @property
    def counts(self) -> Counts:
        """How often adapters were read and evicted since the bank was made."""
        return self._tiers.counts

    def add(self, name: str, adapter: Adapter | str | Path) -> None:
        """Hold an adapter under ``name``, replacing one that had the name, worn or not.

        A folder is compared with the model before its values are read.

        Raises:
            InputError: the folder is no adapter, or the adapter does not fit the model.
        """
        self._require_unmerged(name)
        folder = None if isinstance(adapter, Adapter) else Path(adapter).expanduser().resolve()
        if folder is not None:
            Adapter.outline(folder).require_sites(self.model)
        loaded = adapter if isinstance(adapter, Adapter) else Adapter.load(folder or adapter)
        loaded.require_sites(self.model)
        _say(name, loaded)
        self._outfits.forget(name)
        self._tiers.put(name, loaded, folder)
        if self._worn:
            self._dress()

    def remove(self, name: str) -> None:
        """Let go of an adapter.

        Raises:
            InputError: the bank holds none of that name, or it is being worn or merged.
        """
        normalize(name, self.names)
        if any(name in worn.names for worn in self._worn):
            raise InputError(f"'{name}' is being worn", "Leave the activation first")
        self._require_unmerged(name)
        self._outfits.forget(name)
        self._tiers.drop(name)

    def pin(self, name: str) -> None:
        """Make an adapter resident and keep it so.

        Raises:
            InputError: the bank holds none of that name.
        """
        normalize(name, self.names)
        self._tiers.pin(name, True)
        self._tiers.wear([name])
        self._outfits.make_room(self._in_use())

    def unpin(self, name: str) -> None:
        """Let a pinned adapter move again.

        Raises:
            InputError: the bank holds none of that name.
        """
        normalize(name, self.names)
        self._tiers.pin(name, False)
        self._outfits.make_room(self._in_use())

    @contextmanager
    def activate(
        self,
        mix: Mix,
        *,
        from_token: FromToken | None = None,
        beside: Sequence[str] = (),
        waits: bool = True,
    ) -> Iterator[None]:
        """Open gates for everything that the model computes inside the block.

        Blocks nest: the inner mix takes the place of the outer one, and gives it back.

        Args:
            mix: None, a name, ``{name: gate}``, or a sequence of those, one for each row. A gate is
                a number, a tensor of no dimensions, one of [tokens], or ``{site: gate}``.
            from_token: the gates stay closed before this position of the sequence (counted in
                columns, padding included); one number, or one for each row.
            beside: adapters that are to be at hand, their gates closed: a batch whose rows change
                from step to step then finds everything as it left it.
            waits: adapters trained to wait for their invocation tokens (aLoRA) do. Without it they
                act where their gates say: for a caller who knows where they were invoked.

        Raises:
            InputError: an unknown name, a gate that is no finite number, a DoRA adapter in a
                mixture, or, once the model runs, a batch with another number of rows than the mix.
        """
        rows = [self._followed(row) for row in normalize(mix, self.names)]
        for name in beside:
            normalize(name, self.names)
        invocations = self._tiers.invocations() if waits else {}
        gates = Gates(rows, from_token, invocations, beside if any(rows) else ())
        self._require_dora_alone(gates)
        if self._merge is not None and gates.names:
            raise InputError(
                f"{', '.join(self._merge.names)} is merged into the base", "Unmerge it first"
            )
        self._worn.append(_Worn(gates))
        try:
            self._dress()
            yield
        finally:
            self._worn.pop()
            self._dress()

    def merge(self, mix: Mix, *, keep: bool = True) -> Merge:
        """Write a mix into the model's weights, until :meth:`unmerge`; return what rounding cost.

        Args:
            mix: as for :meth:`activate`, but one for all rows and tokens, and of numbers.
            keep: hold on to the weights that are overwritten, so that the way back is exact.
                Without them the update is subtracted again, and the error of that is reported.

        Raises:
            InputError: a mix is merged already or is active, or the mix is not the same for all
                tokens: it differs by row or token, or an adapter waits for its invocation.
        """
        if self._merge is not None or self._worn:
            state = "merged already" if self._merge is not None else "active"
            raise InputError(f"A mix is {state}", "End it first")
        gates = Gates(normalize(mix, self.names), None, self._tiers.invocations())
        self._require_dora_alone(gates)
        adapters = self._tiers.wear(gates.names)
        self._merge = merge_into(self.model, gates, adapters, keep=keep)
        return self._merge

    def unmerge(self) -> None:
        """Take the merged mix out of the model's weights again.

        Raises:
            InputError: nothing is merged.
        """
        if self._merge is None:
            raise InputError("Nothing is merged into the base")
        self._merge.undo()
        self._merge = None
        self._outfits.make_room(self._in_use())

    def _followed(self, row: Mapping[str, Gate]) -> dict[str, Gate]:
        """Open output layers by the gates of the embeddings that they are tied to."""
        by_site = {name: gate for name, gate in row.items() if isinstance(gate, Mapping)}
        followed: dict[str, Gate] = dict(row)
        for name, adapter in self._tiers.wear(tuple(by_site)).items():
            gate = by_site[name]
            tied = followers(adapter, self.model)
            followed[name] = {
                **{out: gate[own] for out, own in tied.items() if own in gate},
                **gate,
            }
        return followed

    def _require_dora_alone(self, gates: Gates) -> None:
        for row in gates.rows:
            dora = next((name for name in row if self._tiers.is_dora(name)), None)
            if dora is not None and len(row) > 1:
                raise InputError(
                    f"'{dora}' is a DoRA adapter, which changes the length of the base's weights "
                    "and cannot be part of a mixture",
                    "Wear it alone, or in rows of its own",
                )

    def _require_unmerged(self, name: str) -> None:
        if self._merge is not None and name in self._merge.names:
            raise InputError(f"'{name}' is merged into the base", "Unmerge it first")

    def _in_use(self) -> set[tuple[str, ...]]:
        return {worn.names for worn in self._worn}

    def _dress(self) -> None:
        """Make the hooks on the model those of the innermost active mix."""
        self._undress()
        if self._worn and self._worn[-1].names:
            outfit = self._outfits.of(self._worn[-1].names, self._in_use())
            outfit.put_on(self._worn[-1].gates, self._watch)
            self._outfit = outfit

    def _undress(self) -> None:
        if self._outfit is not None:
            self._outfit.take_off()
            self._outfit = None


def _say(name: str, adapter: Adapter) -> None:
    """Remark on what a person would want to know of an adapter that came from elsewhere."""
    if adapter.ignored:
        remark(f"'{name}': ignored beside the adapter: {', '.join(adapter.ignored)}")
    if not adapter.card.proven:
        remark(f"'{name}' has no card of ours: it fits this base, and is unproven for it")
