"""Mixtures for servers that wear one adapter at a time: merged beforehand, or not at all."""

import json
from collections.abc import Mapping
from hashlib import sha256

from loratelier.adapter import Adapter, store
from loratelier.compose import merge_adapters
from loratelier.kit.progress import remark
from loratelier.route import Policy

Mix = Mapping[str, float]
# Concatenated factors: exactly the mixture, at the sum of the ranks.
METHOD = "cat"


class Unmerged(Exception):
    """A mixture that no pre-merged adapter stands for; ``said`` is what the caller reads."""

    def __init__(self, said: str) -> None:
        self.said = said
        super().__init__(said)


class Mixtures:
    """Which upstream adapter stands for a mixture.

    Args:
        merge: whether the mixtures of a policy are merged into the store; without it only an
            adapter at strength 1 is worn.
    """

    def __init__(self, *, merge: bool) -> None:
        self._merge = merge
        self._names: dict[str, str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The merged adapters, as the store calls them."""
        return tuple(dict.fromkeys(self._names.values()))

    def prepare(self, policy: Policy) -> None:
        """Merge what a policy can decide on: strengths other than 1, and roles.

        Raises:
            InputError: an adapter is not in the store, or they cannot be merged.
        """
        if self._merge:
            self._names = {_key(mix): _merged(policy, mix) for mix in mixtures_of(policy)}

    def worn(self, mix: Mix | None) -> str | None:
        """Return the adapter that a mixture is worn as; None for the base.

        Raises:
            Unmerged: it would take several adapters, or another strength, and was not merged.
        """
        if not mix:
            return None
        if len(mix) == 1 and next(iter(mix.values())) == 1:
            return next(iter(mix))
        name = self._names.get(_key(mix))
        if name is None:
            said = ", ".join(f"{name} x{gate:g}" for name, gate in mix.items())
            raise Unmerged(
                f"The servers behind this gateway wear one adapter at strength 1, and this is "
                f"{said}: only mixtures that the policy states and that were merged are served"
            )
        return name


def mixtures_of(policy: Policy) -> list[dict[str, float]]:
    """Return what a policy can decide on that is no single adapter at strength 1."""
    single = [{name: rule.strength} for name, rule in policy.adapters.items()]
    stated = [*single, *(dict(role.mix) for role in policy.roles.values())]
    kept = [{name: gate for name, gate in mix.items() if gate} for mix in stated]
    soft = {_key(mix): mix for mix in kept if mix and not _is_plain(mix)}
    return list(soft.values())


def _is_plain(mix: Mix) -> bool:
    return len(mix) == 1 and next(iter(mix.values())) == 1


def _key(mix: Mix) -> str:
    return json.dumps(sorted((name, round(gate, 6)) for name, gate in mix.items()))


def _merged(policy: Policy, mix: Mix) -> str:
    """Return the name of the merged adapter, which is made where it is not there.

    The name holds what it was made of, so that one of changed adapters is another one.
    """
    adapters: dict[Adapter, float] = {}
    for name, gate in mix.items():
        adapters[store.open(policy.adapters[name].path or name)] = gate
    of = [(adapter.digest, round(gate, 6)) for adapter, gate in adapters.items()]
    name = f"mix-{sha256(json.dumps(sorted(of)).encode()).hexdigest()[:16]}"
    path = store.path_of(name)
    if not path.is_dir():
        remark(f"Merging {', '.join(f'{n} x{g:g}' for n, g in mix.items())} as '{name}'")
        merge_adapters(adapters, method=METHOD, name=name).save(path)
    return name
