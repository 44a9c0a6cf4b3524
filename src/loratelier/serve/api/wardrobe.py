"""What hangs ready: the adapters of the store that fit the base, and how each is read and worn."""

import dataclasses
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from loratelier.adapter import Adapter, store
from loratelier.base import Base, with_tokens
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark, task
from loratelier.route import Policy, Router
from loratelier.route.signals import NONE
from loratelier.scope.strength import HIGHEST
from loratelier.serve.api.face import Writer
from loratelier.serve.api.reading import Reader

# The model that routes; no adapter can have this name.
AUTO = "auto"


@dataclass(frozen=True)
class Costume:
    """One adapter that is served; ``strength`` is what its card recommends, or 1."""

    name: str
    root: str
    digest: str
    strength: float
    tokens: Mapping[str, int]


class Wardrobe:
    """The served adapters by name; used by several threads.

    Args:
        base: the base.
        engine: wears them.
        name: what the base is called as a model.
    """

    def __init__(self, base: Base, engine: Writer, name: str) -> None:
        self.base = base
        self.base_name = name
        self._engine = engine
        self._lock = threading.Lock()
        self._costumes: dict[str, Costume] = {}
        self._readers: dict[frozenset[str], Reader] = {}

    def fill(self, policy: Policy | None = None) -> None:
        """Load every adapter of the store that fits, and those that a policy has elsewhere.

        What is not served is named with the reason.
        """
        rules = policy.adapters.items() if policy is not None else ()
        elsewhere = {name: rule.path for name, rule in rules if rule.path is not None}
        inside = [name for name in store.names() if name not in elsewhere]
        with task("Adapters", total=len(inside) + len(elsewhere)) as bar:
            for name in [*inside, *elsewhere]:
                try:
                    if name in elsewhere:
                        self.put(name, elsewhere[name])
                    else:
                        self.load(name)
                except InputError as error:
                    remark(f"Not served: {error}")
                bar.advance()
        for name, _ in rules:
            if name not in self._costumes and name not in elsewhere and name not in inside:
                remark(f"Not served: the policy names '{name}', which is not in the store")

    def load(self, name: str, stored: str | None = None, *, replace: bool = False) -> None:
        """Load an adapter of the store.

        Args:
            name: what it is served as.
            stored: its name in the store, where that is another.
            replace: whether one that is served under the name makes way; requests that are
                running go on with the weights that they began with.

        Raises:
            InputError: a name that is none, no such adapter in the store, one that does not fit,
                or a name that is taken.
        """
        source = stored or name
        # By its name alone: neither a path nor a link leads out of the store.
        folder = store.require_stored(source)
        if PurePath(source).name != source or folder.resolve().parent != folder.parent.resolve():
            raise InputError(f"{source!a} is no adapter of the store itself")
        self.put(name, folder, replace=replace)

    def put(self, name: str, folder: Path, *, replace: bool = False) -> None:
        """Load an adapter from a folder that whoever runs the server named, in a policy.

        Raises:
            InputError: as :meth:`load`.
        """
        self._require_name(name)
        adapter = dataclasses.replace(Adapter.load(folder), name=name)
        with self._lock:
            taken = name in self._costumes
            if taken and not replace:
                raise InputError(f"The adapter '{name}' is loaded already", "Say load_inplace")
            if taken:
                self._engine.adapters.replace(name, adapter)
            else:
                self._engine.adapters.add(name, adapter)
            strength = 1.0 if adapter.card.strength is None else adapter.card.strength
            costumes = dict(self._costumes)
            costumes[name] = Costume(
                name, folder.name, adapter.digest, strength, adapter.card.tokens
            )
            # One assignment: readers of another thread see the old or the new.
            self._costumes, self._readers = costumes, {}

    def unload(self, name: str) -> None:
        """Serve an adapter no longer.

        Raises:
            InputError: none is served under the name.
        """
        with self._lock:
            if name not in self._costumes:
                raise InputError(f"There is no adapter {name!a} loaded")
            self._costumes = {n: each for n, each in self._costumes.items() if n != name}
            self._readers = {}
            self._engine.adapters.remove(name)

    def __contains__(self, name: str) -> bool:
        return name in self._costumes

    def __iter__(self) -> Iterator[Costume]:
        return iter(self._costumes.values())

    @property
    def names(self) -> frozenset[str]:
        """What is served."""
        return frozenset(self._costumes)

    def strength(self, name: str) -> float:
        """Return how strongly an adapter is worn where nobody says.

        One that was unloaded a moment ago has 1; the engine then says that it is gone.
        """
        costume = self._costumes.get(name)
        return 1.0 if costume is None else costume.strength

    def reader(self, worn: Iterable[str]) -> Reader:
        """Return what reads for a mixture: the base's tokenizer, taught what its adapters brought.

        Raises:
            InputError: the adapters brought tokens that clash.
        """
        costumes = self._costumes
        teaching = frozenset(name for name in worn if name in costumes and costumes[name].tokens)
        if teaching not in self._readers:
            base = self.base
            taught: dict[str, int] = {}
            for name in sorted(teaching):
                base = with_tokens(base, costumes[name].tokens)
                taught |= costumes[name].tokens
            self._readers[teaching] = Reader(base, taught)
        return self._readers[teaching]

    def _require_name(self, name: str) -> None:
        if name in (AUTO, NONE, self.base_name):
            raise InputError(f"'{name}' is the name of something else here", "Choose another name")
        if not Router.auto([name]).policy.adapters:
            raise InputError(
                f"{name!a} is no name for an adapter, or could be taken for another one",
                "Letters of one alphabet, digits, '.', '_' and '-', 64 at most",
            )


def gate(strength: float) -> float:
    """Return a card's strength as a policy can hold it."""
    return min(max(strength, 0.0), HIGHEST)
