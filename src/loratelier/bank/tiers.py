"""Where adapters are kept: resident on the model's device, in the host's memory, or on disk.

An adapter is in one tier at a time. Wearing it makes it resident. Where a budget is exceeded, what
was worn longest ago moves down one tier; what is worn, pinned, or has no folder to come back from,
stays. Every move is counted.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from loratelier.adapter import Adapter
from loratelier.base.layers import device_of, find
from loratelier.kit.errors import InputError

Tier = Literal["resident", "host", "disk"]


@dataclass(frozen=True)
class Held:
    """One adapter of the bank.

    Attributes:
        tier: where it is now.
        bytes: the size of its tensors.
        pinned: whether it stays resident.
        proven: whether its card names this base's weights; False for one without a card.
        ignored: files that lay in its folder and were not read.
    """

    tier: Tier
    bytes: int
    pinned: bool
    proven: bool
    ignored: tuple[str, ...]


@dataclass
class Counts:
    """What happened in a bank since it was made.

    Attributes:
        reads: adapters read from disk because they were to be worn.
        to_host: evictions from resident to the host's memory.
        to_disk: evictions from the host's memory; the folder remains.
        stacks_built: sets of adapters that were put side by side for a mix.
        stacks_reused: mixes that found theirs.
        stacks_evicted: sets that made room for others.
    """

    reads: int = 0
    to_host: int = 0
    to_disk: int = 0
    stacks_built: int = 0
    stacks_reused: int = 0
    stacks_evicted: int = 0

    def to_json(self) -> dict[str, int]:
        """Return the counts as a JSON object."""
        return asdict(self)


@dataclass
class _Entry:
    adapter: Adapter | None  # None while it is on disk
    folder: Path | None
    digest: str
    bytes: int
    proven: bool
    ignored: tuple[str, ...]
    pinned: bool = False
    invocation: tuple[int, ...] = ()
    dora: bool = False


@dataclass
class Tiers:
    """The adapters of a bank, ordered by use.

    Args:
        resident_bytes: how much resident adapters and their stacks may take; None for no limit.
        host_bytes: how much adapters in the host's memory may take; None for no limit.
    """

    model: nn.Module
    resident_bytes: int | None = None
    host_bytes: int | None = None
    counts: Counts = field(default_factory=Counts)
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _resident: "OrderedDict[str, None]" = field(default_factory=OrderedDict)
    _host: "OrderedDict[str, None]" = field(default_factory=OrderedDict)

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters held, in the order in which they were added."""
        return tuple(self._entries)

    def put(self, name: str, adapter: Adapter, folder: Path | None) -> None:
        """Hold an adapter; it waits in the host's memory, or on disk if that is full.

        Raises:
            InputError: the adapters that have no folder exceed the host's budget.
        """
        entry = _Entry(
            adapter=adapter,
            folder=folder,
            digest=adapter.digest,
            bytes=adapter.bytes,
            proven=adapter.card.proven,
            ignored=adapter.ignored,
            invocation=adapter.settings.invocation,
            dora=adapter.settings.dora,
        )
        kept = sum(
            each.bytes for n, each in self._entries.items() if n != name and each.folder is None
        )
        limit = self.host_bytes
        if folder is None and limit is not None and kept + entry.bytes > limit:
            raise InputError(
                f"'{name}' would make {kept + entry.bytes:,} bytes of adapters without a folder, "
                f"and the host's budget is {limit:,}",
                "Save it, and add the folder",
            )
        if name in self._entries:
            entry.pinned = self._entries[name].pinned
            self._leave(name)
        self._entries[name] = entry
        self._host[name] = None
        self.make_room(worn=())

    def drop(self, name: str) -> None:
        """Let go of an adapter."""
        self._leave(name)
        del self._entries[name]

    def _leave(self, name: str) -> None:
        self._resident.pop(name, None)
        self._host.pop(name, None)

    def wear(self, names: Collection[str]) -> dict[str, Adapter]:
        """Make adapters resident and return them; the least lately worn may have to move down.

        Raises:
            InputError: the folder of one has changed since it was added.
        """
        return {name: self._raise(name) for name in names}

    def _raise(self, name: str) -> Adapter:
        entry = self._entries[name]
        if entry.adapter is None:
            entry.adapter = self._read(name, entry)
        if name not in self._resident:
            self._host.pop(name, None)
            entry.adapter = _moved(entry.adapter, self.model)
        self._resident[name] = None
        self._resident.move_to_end(name)
        return entry.adapter

    def _read(self, name: str, entry: _Entry) -> Adapter:
        assert entry.folder is not None  # only what has a folder is ever put on disk
        adapter = Adapter.load(entry.folder)
        if adapter.digest != entry.digest:
            raise InputError(
                f"{entry.folder} has changed since '{name}' was added to the bank",
                "Add it again",
            )
        self.counts.reads += 1
        return adapter

    def make_room(self, *, worn: Collection[str], stack_bytes: int = 0) -> None:
        """Move down what exceeds the budgets, least lately worn first."""
        free = [n for n in self._resident if n not in worn and not self._entries[n].pinned]
        for name in free:
            if self._fits(self.resident_bytes, self._resident, stack_bytes):
                break
            self._lower(name)
        for name in [n for n in self._host if self._entries[n].folder is not None]:
            if self._fits(self.host_bytes, self._host, 0):
                break
            self._host.pop(name)
            self._entries[name].adapter = None
            self.counts.to_disk += 1

    def _fits(self, limit: int | None, names: Collection[str], others: int) -> bool:
        return limit is None or others + sum(self._entries[n].bytes for n in names) <= limit

    def _lower(self, name: str) -> None:
        entry = self._entries[name]
        assert entry.adapter is not None
        entry.adapter = _on_host(entry.adapter)
        self._resident.pop(name)
        self._host[name] = None
        self.counts.to_host += 1

    def exceeded_by(self, stack_bytes: int) -> int:
        """Return how many bytes the resident tier is over its budget; 0 when it is not."""
        if self.resident_bytes is None:
            return 0
        used = stack_bytes + sum(self._entries[n].bytes for n in self._resident)
        return max(0, used - self.resident_bytes)

    def pin(self, name: str, pinned: bool) -> None:
        """Keep an adapter resident, or let it move again."""
        self._entries[name].pinned = pinned

    def invocations(self) -> dict[str, tuple[int, ...]]:
        """Return the invocation tokens of the adapters that wait for some."""
        return {n: entry.invocation for n, entry in self._entries.items() if entry.invocation}

    def is_dora(self, name: str) -> bool:
        """Whether an adapter changes the length of the weights, which no mixture can."""
        return self._entries[name].dora

    def held(self) -> Mapping[str, Held]:
        """Return every adapter with where it is."""
        return {name: self._held(name, entry) for name, entry in self._entries.items()}

    def _held(self, name: str, entry: _Entry) -> Held:
        tier: Tier = "resident" if name in self._resident else "host"
        tier = "disk" if entry.adapter is None else tier
        return Held(tier, entry.bytes, entry.pinned, entry.proven, entry.ignored)


def _moved(adapter: Adapter, model: nn.Module) -> Adapter:
    """Return the adapter with its pairs beside the layers that they belong to."""

    def beside(site: str, tensor: Any) -> Any:
        module = find(model, site)
        return tensor if module is None else tensor.to(device_of(module))

    return replace(
        adapter,
        tensors={
            site: (beside(site, down), beside(site, up))
            for site, (down, up) in adapter.tensors.items()
        },
    )


def _on_host(adapter: Adapter) -> Adapter:
    return replace(
        adapter, tensors={site: (a.cpu(), b.cpu()) for site, (a, b) in adapter.tensors.items()}
    )
