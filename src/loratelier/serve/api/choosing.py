"""What is worn for a request: what it names, or what a policy decides, within the key's rights."""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from loratelier.base import Base
from loratelier.base.twin import twin
from loratelier.kit.errors import InputError, nearest
from loratelier.route import Decision, Policy, Router
from loratelier.route.conflicts import apart, disagreeing
from loratelier.route.messages import latest_user_turn
from loratelier.route.policy import AdapterRule
from loratelier.route.stages import permitted
from loratelier.serve.api.bodies import Route, Worn
from loratelier.serve.api.errors import ApiError, bad_request, unknown_model
from loratelier.serve.api.keys import Caller
from loratelier.serve.api.wardrobe import AUTO, gate

# The policy that is always there: names and signals, and no other stage.
SIGNALS = "signals"
# Conversations whose last decision is remembered, so that what is worn may stay on.
_REMEMBERED = 4096


@dataclass(frozen=True)
class Wish:
    """What a request says about what is to be worn."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    lora: Sequence[Worn] | None = None
    route: Route | None = None


class Wares(Protocol):
    """What there is to wear, here or behind a gateway."""

    @property
    def base_name(self) -> str:
        """What the base is called as a model."""

    @property
    def names(self) -> frozenset[str]:
        """The adapters."""

    def strength(self, name: str) -> float:
        """Return how strongly an adapter is worn where nobody says."""


class Chooser:
    """Decides; used by several threads, one decision at a time.

    Args:
        wardrobe: what there is to wear.
        policies: policy files; the first is what ``auto`` means, each is called as its file is.
        base: reads requests for policies that go by hidden states, with modules of its own;
            without it such a policy's own base is loaded.
    """

    def __init__(
        self, wardrobe: Wares, policies: Sequence[Path] = (), base: Base | None = None
    ) -> None:
        self._wardrobe = wardrobe
        self._routers = _routers(policies, base)
        self._default = next(iter(self._routers), SIGNALS)
        self._lock = threading.Lock()
        self._remembered: OrderedDict[bytes, Decision] = OrderedDict()

    def policy(self) -> Policy:
        """Return the policy that ``auto`` goes by now."""
        return self._router(self._default).policy

    def visible(self, caller: Caller) -> tuple[list[str], list[str]]:
        """Return the adapters and the roles that a caller may name."""
        adapters = sorted(name for name in self._wardrobe.names if caller.may(name))
        roles = permitted(self.policy(), frozenset(adapters)).roles
        return adapters, sorted(name for name in roles if name not in adapters and name != AUTO)

    def choose(self, wish: Wish, caller: Caller) -> Decision:
        """Decide what is worn.

        Raises:
            ApiError: 404 for a name that is not there or not this caller's, 400 for wishes that
                contradict each other.
        """
        route = wish.route or Route()
        allowed = frozenset(name for name in self._wardrobe.names if caller.may(name))
        if wish.lora is not None:
            return self._mixed(wish, allowed)
        if wish.model == AUTO:
            return self._routed(wish, route, allowed, caller)
        if route.model_dump(exclude={"explain"}) != Route().model_dump(exclude={"explain"}):
            raise bad_request(f"'route' is for the model '{AUTO}'", "route")
        if wish.model == self._wardrobe.base_name:
            return _named({}, wish, "The base was named", "Названа база")
        if wish.model in allowed:
            mix = {wish.model: self._wardrobe.strength(wish.model)}
            return _named(mix, wish, f"Named: {wish.model}", f"Названо: {wish.model}")
        if wish.model in permitted(self.policy(), allowed).roles:
            with self._lock:
                router = self._router(self._default)
                return router.route(wish.messages, name=wish.model, allowed=allowed)
        raise self._unknown(wish.model, caller)

    def require_base(self, model: str, caller: Caller) -> None:
        """Make sure that a model is the base.

        Raises:
            ApiError: it is another, or there is none of the name.
        """
        if model == self._wardrobe.base_name:
            return
        if model == AUTO or model in self.visible(caller)[0]:
            raise bad_request(f"Embeddings are the base's: '{self._wardrobe.base_name}'", "model")
        raise self._unknown(model, caller)

    def _unknown(self, name: str, caller: Caller) -> ApiError:
        adapters, roles = self.visible(caller)
        close = nearest(name, [self._wardrobe.base_name, AUTO, *adapters, *roles])
        return unknown_model(name, f"Did you mean '{close}'?" if close else None)

    def _mixed(self, wish: Wish, allowed: frozenset[str]) -> Decision:
        """Wear what ``lora`` says; signals are then text, as with every model that is named."""
        if wish.model not in (AUTO, self._wardrobe.base_name):
            raise bad_request(
                f"'lora' says what is worn: name '{self._wardrobe.base_name}' as the model", "lora"
            )
        if wish.route is not None:
            raise bad_request("'lora' and 'route' contradict each other: give one", "lora")
        for each in wish.lora or ():
            if each.name not in allowed:
                raise unknown_model(each.name)
        mix = {each.name: each.scale for each in wish.lora or ()}
        names = ", ".join(f"{name} x{scale:g}" for name, scale in mix.items()) or "nothing"
        named = _named(mix, wish, f"Named: {names}", f"Названо: {names}")
        conflicts = self.policy().conflicts
        if conflicts is None or not named.mix:
            return named
        kept, notes = apart(named.mix, disagreeing(conflicts), conflicts.below)
        return replace(named, mix=kept or None, warnings=tuple(notes))

    def _routed(
        self, wish: Wish, route: Route, allowed: frozenset[str], caller: Caller
    ) -> Decision:
        for name in route.allow or ():
            if name not in allowed:
                raise unknown_model(name)
        within = allowed if route.allow is None else allowed & frozenset(route.allow)
        within -= frozenset(route.deny)
        name = route.policy or self._default
        if name != SIGNALS and name not in self._routers:
            known = ", ".join([*self._routers, SIGNALS])
            raise bad_request(f"There is no policy {name[:80]!a}; known: {known}", "route.policy")
        before, here = _places(caller.name, name, wish.messages)
        with self._lock:
            previous = self._remembered.get(before) if before else None
            router = self._router(name)
            decision = router.route(wish.messages, allowed=within, previous=previous)
            decision = _narrowed(decision, route)
            if here:
                self._remembered[here] = replace(decision, text=[], considered=())
                self._remembered.move_to_end(here)
                while len(self._remembered) > _REMEMBERED:
                    self._remembered.popitem(last=False)
        return decision

    def _router(self, name: str) -> Router:
        if name in self._routers:
            return self._routers[name]
        known = self._wardrobe
        rules = {n: AdapterRule(strength=gate(known.strength(n))) for n in known.names}
        return Router(Policy(adapters=rules, stages=("name", "signals")))


def _routers(policies: Sequence[Path], base: Base | None) -> dict[str, Router]:
    """Read the policies; those that go by hidden states read with modules of their own.

    Raises:
        InputError: one is missing or no policy, or two have one name.
    """
    routers: dict[str, Router] = {}
    reading: Base | None = None
    for path in policies:
        if path.stem in routers or path.stem == SIGNALS:
            raise InputError(f"A policy called '{path.stem}' is there already", "Rename the file")
        if base is not None and reading is None:
            reading = twin(base)
        routers[path.stem] = Router.load(path, base=reading)
    return routers


def _named(mix: dict[str, float], wish: Wish, reason: str, reason_ru: str) -> Decision:
    return Decision(
        mix={name: scale for name, scale in mix.items() if scale} or None,
        reason=f"{reason}.",
        reason_ru=f"{reason_ru}.",
        confidence=1.0,
        stage="name",
        text=[dict(message) for message in wish.messages],
        asked=True,
    )


def _narrowed(decision: Decision, route: Route) -> Decision:
    """Return the decision within a request's own bounds: how many, and how sure."""
    if route.threshold is not None and decision.confidence < route.threshold:
        figures = f"{decision.confidence:.2f} < {route.threshold:.2f}"
        return replace(
            decision,
            mix=None,
            role=None,
            system=None,
            sampling={},
            stage="base",
            reason=f"Not sure enough ({figures}), so the base answers.",
            reason_ru=f"Уверенности мало ({figures}): отвечает база.",
        )
    if route.top_k is not None and decision.mix:
        ranked = sorted(decision.mix.items(), key=lambda worn: -abs(worn[1]))
        return replace(decision, mix=dict(ranked[: route.top_k]))
    return decision


def _places(
    caller: str, policy: str, messages: Sequence[Mapping[str, Any]]
) -> tuple[bytes | None, bytes | None]:
    """Return what the turn before and this one are remembered by: all that was said until then.

    The API keeps no conversations; a client sends each one whole, and so it is known again.
    """
    turns = [dict(message) for message in messages]
    last = latest_user_turn(turns)
    if last is None:
        return None, None
    before = latest_user_turn(turns[:last])
    digests = [
        None
        if end is None
        else sha256(json.dumps([caller, policy, turns[: end + 1]]).encode()).digest()
        for end in (before, last)
    ]
    return digests[0], digests[1]
