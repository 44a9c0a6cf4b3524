"""What the page's server holds in memory: bases, and the one hand that may touch a model."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from loratelier.adapter import Adapter, store
from loratelier.base import Base, load_base
from loratelier.kit.errors import InputError
from loratelier.scope import Inspection

_BASES = 2  # that stay loaded
_LOOKS = 6  # inspections that stay to be picked in


class Desk:
    """Loads bases once, and lets one request at a time use a model."""

    def __init__(self, *bases: Base) -> None:
        """``bases`` are in memory already, by their ``spec``."""
        self._bases: OrderedDict[str, Base] = OrderedDict((base.spec, base) for base in bases)
        self._looks: OrderedDict[str, Inspection] = OrderedDict()
        self._hand = threading.RLock()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Hold the models: gates are set on them, so two requests would wear each other's."""
        with self._hand:
            yield

    @property
    def loaded(self) -> tuple[str, ...]:
        """The bases that are in memory."""
        return tuple(self._bases)

    def base(self, spec: str) -> Base:
        """Return a base, loaded when it is first asked for.

        Raises:
            InputError: there is no such base.
        """
        with self._hand:
            if spec not in self._bases:
                self._bases[spec] = load_base(spec)
            self._bases.move_to_end(spec)
            while len(self._bases) > _BASES:
                self._bases.popitem(last=False)
            return self._bases[spec]

    def keep(self, name: str, seen: Inspection) -> None:
        """Keep an inspection for later picks; the oldest goes."""
        self._looks[name] = seen
        while len(self._looks) > _LOOKS:
            self._looks.popitem(last=False)

    def look(self, name: str) -> Inspection:
        """Return an inspection that was kept.

        Raises:
            InputError: it is not there any more.
        """
        if name not in self._looks:
            raise InputError("This look is not kept any more", "Look again")
        return self._looks[name]


def spec_of(adapter: Adapter) -> str:
    """Return which base an adapter's card names.

    Raises:
        InputError: it names none.
    """
    if adapter.card.base.spec is None:
        raise InputError(
            f"The card of '{adapter.name}' names no base", "Import it with a base, or train it anew"
        )
    return adapter.card.base.spec


def opened(name: str) -> Adapter:
    """Open an adapter of the store by its name.

    Raises:
        InputError: there is none; a path is not taken from a page.
    """
    return store.open(store.require_stored(name))
