"""The adapters that an engine holds: names on the outside, versions on the inside.

A request keeps the version that it began with. One that was removed or replaced lies in the bank
until the last request that wears it is over.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.base import Base, with_tokens
from loratelier.kit.errors import InputError, did_you_mean


@dataclass(eq=False)
class Version:
    """One adapter as it was when it was added; ``name`` is what the bank knows it by."""

    name: str
    digest: str
    invocation: tuple[int, ...]
    tokens: dict[str, int]
    users: int = 0
    gone: bool = False


class Held:
    """The adapters of an engine; every method may be called from any thread.

    Args:
        base: that they are worn on.
        bank: that holds them.
        on_thread: carries out what touches the bank on the thread that runs the model.
    """

    def __init__(
        self, base: Base, bank: AdapterBank, on_thread: Callable[[Callable[[], None]], None]
    ) -> None:
        self._base, self._bank, self._on_thread = base, bank, on_thread
        self._lock = threading.RLock()
        self._versions: dict[str, Version] = {}
        self._knowing: dict[tuple[tuple[str, int], ...], Base] = {(): base}
        self._number = 0

    @property
    def names(self) -> tuple[str, ...]:
        """What can be worn, in the order in which it was added."""
        with self._lock:
            return tuple(self._versions)

    def digest(self, name: str) -> str:
        """Return the digest of an adapter's contents.

        Raises:
            InputError: none is held under the name.
        """
        with self._lock:
            return self._version(name).digest

    def add(self, name: str, adapter: Adapter) -> None:
        """Hold an adapter under a new name.

        Raises:
            InputError: the name is taken, or the adapter does not fit the base.
        """
        new = self._held(name, adapter)
        with self._lock:
            free = name not in self._versions
            if free:
                self._versions[name] = new
        if not free:
            self._let_go(new)
            raise InputError(f"An adapter '{name}' is held already", "Replace it")

    def replace(self, name: str, adapter: Adapter) -> None:
        """Hold another adapter under a name; what is being written goes on with the old one.

        Raises:
            InputError: the adapter does not fit the base.
        """
        new = self._held(name, adapter)
        with self._lock:
            old = self._versions.get(name)
            self._versions[name] = new
        if old is not None:
            self._let_go(old)

    def remove(self, name: str) -> None:
        """Hold an adapter no longer; what is being written with it goes on.

        Raises:
            InputError: none is held under the name.
        """
        with self._lock:
            old = self._version(name)
            del self._versions[name]
        self._let_go(old)

    def take(self, names: tuple[str, ...]) -> list[Version]:
        """Return the present versions of adapters, in use until they are given back.

        Raises:
            InputError: a name that is not held.
        """
        with self._lock:
            found = [self._version(name) for name in names]
            for version in found:
                version.users += 1
            return found

    def give_back(self, versions: list[Version]) -> None:
        """Note that a request is over; on the thread that runs the model."""
        with self._lock:
            for version in versions:
                version.users -= 1
                if version.gone and not version.users:
                    self._bank.remove(version.name)

    def at_hand(self) -> tuple[str, ...]:
        """Return what the bank calls the adapters that may be worn next."""
        with self._lock:
            return tuple(version.name for version in self._versions.values())

    def knowing(self, versions: list[Version]) -> Base:
        """Return the base with the tokens that adapters brought."""
        taught = {word: number for version in versions for word, number in version.tokens.items()}
        key = tuple(sorted(taught.items()))
        with self._lock:
            if key not in self._knowing:
                self._knowing[key] = with_tokens(self._base, taught)
            return self._knowing[key]

    def _version(self, name: str) -> Version:
        if name not in self._versions:
            raise InputError(
                f"There is no adapter '{name}'", did_you_mean(name, list(self._versions))
            )
        return self._versions[name]

    def _held(self, name: str, adapter: Adapter) -> Version:
        adapter.require_fit(with_tokens(self._base, adapter.card.tokens))
        with self._lock:
            self._number += 1
            inside = f"{name}#{self._number}"
        # Never while the lock is held: the thread that runs the model takes it too.
        self._on_thread(lambda: self._bank.add(inside, adapter))
        invocation = adapter.settings.invocation
        return Version(inside, adapter.digest, invocation, dict(adapter.card.tokens))

    def _let_go(self, version: Version) -> None:
        def leave() -> None:
            with self._lock:
                version.gone = True
                unused = not version.users
            if unused:
                self._bank.remove(version.name)

        self._on_thread(leave)
