"""The gateway's paths: what is routed, what is passed on, and what is not let through."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from loratelier import __version__
from loratelier.kit.errors import InputError
from loratelier.kit.models import problem
from loratelier.kit.progress import remark
from loratelier.route import Decision, Policy
from loratelier.serve.api import errors
from loratelier.serve.api.app import Counted, listing
from loratelier.serve.api.bodies import Route, Worn
from loratelier.serve.api.choosing import Chooser, Wish
from loratelier.serve.api.errors import ApiError, bad_request, json_response, unknown_model
from loratelier.serve.api.headers import decision_headers
from loratelier.serve.api.keys import Caller, Keys
from loratelier.serve.api.limits import Limited, Limits
from loratelier.serve.api.metrics import TYPE, Metrics, gauge
from loratelier.serve.api.wardrobe import AUTO
from loratelier.serve.gateway.forward import Forwarder, Outgoing, passed_on
from loratelier.serve.gateway.mixtures import Mixtures, Unmerged
from loratelier.serve.gateway.replicas import Replicas
from loratelier.serve.gateway.splice import Spliced

_CHAT, _TEXT = "/v1/chat/completions", "/v1/completions"
# Passed on for the base, or for an adapter that the caller may use. Nothing else is let through:
# whoever may ask for words may not load adapters upstream.
_PLAIN = ("/v1/embeddings", "/tokenize", "/detokenize")
_MIX = TypeAdapter(list[Worn])


class Behind:
    """What there is to wear behind the gateway: the adapters of its policy."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self.policy = Policy()

    @property
    def base_name(self) -> str:
        """What the replicas call the base."""
        return self._replicas.model or ""

    @property
    def names(self) -> frozenset[str]:
        """The adapters of the policy."""
        return frozenset(self.policy.adapters)

    def strength(self, name: str) -> float:
        """Return what the policy says."""
        rule = self.policy.adapters.get(name)
        return 1.0 if rule is None else rule.strength


@dataclass
class Gateway:
    """All that the paths share; ``upstream_key`` takes the place of a caller's own key."""

    replicas: Replicas
    forwarder: Forwarder
    behind: Behind
    chooser: Chooser
    mixtures: Mixtures
    keys: Keys
    adapters_at: str | None = None
    upstream_key: str | None = None
    every: float = 2.0
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    began: int = field(default_factory=lambda: int(time.time()))

    async def hold(self) -> None:
        """Bring the replicas to what the policy says now."""
        policy = self.chooser.policy()
        if policy is not self.behind.policy:
            await run_in_threadpool(self.mixtures.prepare, policy)
            self.behind.policy = policy
        names = [*policy.adapters, *self.mixtures.names]
        await self.replicas.hold({name: self._path(policy, name) for name in names})

    def _path(self, policy: Policy, name: str) -> str:
        """Return where the replicas find an adapter; our own servers are told its name."""
        if self.adapters_at is None:
            return name
        rule = policy.adapters.get(name)
        folder = rule.path.name if rule is not None and rule.path is not None else name
        return f"{self.adapters_at.rstrip('/')}/{folder}"


def make_gateway(gateway: Gateway) -> FastAPI:
    """Return the app; while it runs it looks after the replicas."""

    @asynccontextmanager
    async def held(_: FastAPI) -> AsyncIterator[None]:
        await gateway.hold()
        looking = asyncio.create_task(_look(gateway))
        yield
        looking.cancel()

    app = FastAPI(
        title="LoRAtelier gateway",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=held,
    )
    app.state.gateway = gateway
    errors.install(app)
    paths = [*_ROUTES, *_PLAIN]
    app.add_middleware(Counted, metrics=gateway.metrics, paths=frozenset(paths))
    app.add_middleware(Limited, limits=gateway.limits)
    for path, (method, answer) in _ROUTES.items():
        app.add_route(path, answer, methods=[method])
    for path in _PLAIN:
        app.add_route(path, _plain, methods=["POST"])
    return app


async def _look(gateway: Gateway) -> None:
    while True:
        await asyncio.sleep(gateway.every)
        try:
            await gateway.hold()
        except InputError as error:
            remark(str(error))


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


def _caller(request: Request) -> Caller:
    return _gateway(request).keys.caller(request.headers.get("authorization"))


async def _health(request: Request) -> Response:
    up = [replica.url for replica in _gateway(request).replicas.all if replica.is_up]
    if not up:
        raise ApiError(503, "No server behind this gateway is reached")
    return json_response({"status": "ok", "replicas": len(up)})


async def _metrics(request: Request) -> Response:
    gateway, caller = _gateway(request), _caller(request)
    if caller.allowed is not None:
        raise ApiError(403, "Metrics are for keys that may use every adapter")
    replicas = gateway.replicas.all
    names = [(f'replica="{number}"', each) for number, each in enumerate(replicas)]
    more = [
        "# HELP loratelier_replica_up Whether a replica is reached.",
        "# TYPE loratelier_replica_up gauge",
        *(f"loratelier_replica_up{{{label}}} {int(each.is_up)}" for label, each in names),
        "# HELP loratelier_replica_adapters Adapters that a replica has loaded.",
        "# TYPE loratelier_replica_adapters gauge",
        *(f"loratelier_replica_adapters{{{n}}} {len(each.resident)}" for n, each in names),
        "# HELP loratelier_replica_running Requests that a replica is answering.",
        "# TYPE loratelier_replica_running gauge",
        *(f"loratelier_replica_running{{{label}}} {each.running}" for label, each in names),
        *gauge("loratelier_adapter_loads", "Adapters loaded upstream.", gateway.replicas.loads),
        *gauge("loratelier_retries", "Asked of another replica.", gateway.forwarder.retries),
    ]
    return PlainTextResponse(gateway.metrics.render(more), media_type=TYPE)


async def _models(request: Request) -> Response:
    gateway, caller = _gateway(request), _caller(request)
    adapters, roles = gateway.chooser.visible(caller)
    base = gateway.behind.base_name
    return json_response(
        {"object": "list", "data": listing(base, adapters, roles, {}, gateway.began)}
    )


async def _model(request: Request) -> Response:
    gateway, caller = _gateway(request), _caller(request)
    adapters, roles = gateway.chooser.visible(caller)
    name = request.path_params["name"]
    for each in listing(gateway.behind.base_name, adapters, roles, {}, gateway.began):
        if each["id"] == name:
            return json_response(each)
    raise unknown_model(name)


async def _routed(request: Request) -> Response:
    """Decide what is worn, say so in ``model``, and pass the rest on."""
    gateway, caller = _gateway(request), _caller(request)
    _require_base(gateway)
    body = Spliced(await request.body())
    wish = _wish(body.values, chat=request.url.path == _CHAT)
    if wish.route is not None and wish.route.explain:
        raise bad_request("A gateway explains in headers, and changes no answer", "route.explain")
    decision = await run_in_threadpool(gateway.chooser.choose, wish, caller)
    adapter = _worn(gateway, decision)
    changes = _changes(body.values, decision, wish)
    changes["model"] = gateway.replicas.name_of(adapter)
    caller.admit(0)
    gateway.metrics.worn.add(1, adapter or "base", decision.stage)
    sent = body.changed(changes, without=("lora", "route"))
    return await _passed(request, sent, adapter, decision_headers(decision))


async def _plain(request: Request) -> Response:
    """Pass on what is not routed, for a model that the caller may name."""
    gateway, caller = _gateway(request), _caller(request)
    _require_base(gateway)
    body = Spliced(await request.body())
    name = body.values.get("model", gateway.behind.base_name)
    adapter = None
    if name != gateway.behind.base_name:
        if not isinstance(name, str) or name not in gateway.chooser.visible(caller)[0]:
            raise unknown_model(str(name))
        adapter = name
    changes = {"model": gateway.replicas.name_of(adapter)} if "model" in body.values else {}
    caller.admit(0)
    return await _passed(request, body.changed(changes), adapter, {})


async def _passed(
    request: Request, body: bytes, adapter: str | None, told: Mapping[str, str]
) -> Response:
    gateway = _gateway(request)
    query = request.url.query
    outgoing = Outgoing(
        request.method,
        f"{request.url.path}?{query}" if query else request.url.path,
        passed_on(request.headers.raw, gateway.upstream_key),
        body,
        adapter,
    )
    return await gateway.forwarder.answer(request, outgoing, told)


def _require_base(gateway: Gateway) -> None:
    if not gateway.behind.base_name:
        raise ApiError(503, "No server behind this gateway was reached yet", code="starting")


def _wish(values: Mapping[str, Any], *, chat: bool) -> Wish:
    """Read what concerns the choice; everything else is the upstream's to judge.

    Raises:
        InputError, ApiError: it is not of the form that the API has.
    """
    model = values.get("model")
    if not isinstance(model, str):
        raise bad_request("The body has no 'model'", "model")
    try:
        lora = None if values.get("lora") is None else _MIX.validate_python(values["lora"])
        route = None if values.get("route") is None else Route.model_validate(values["route"])
    except ValidationError as error:
        raise bad_request(problem(error)) from error
    if lora is not None and len({each.name for each in lora}) < len(lora):
        raise bad_request("an adapter is named twice", "lora")
    if not chat:
        prompt = values.get("prompt")
        if model == AUTO and not isinstance(prompt, str):
            raise bad_request(f"'{AUTO}' reads one text: give it alone, or name a model", "prompt")
        said = prompt if isinstance(prompt, str) else ""
        return Wish(model, [{"role": "user", "content": said}], lora, route)
    messages = values.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("The body has no 'messages'", "messages")
    if not all(isinstance(each, dict) and isinstance(each.get("role"), str) for each in messages):
        raise bad_request("A message has a 'role' and a 'content'", "messages")
    return Wish(model, messages, lora, route)


def _changes(values: Mapping[str, Any], decision: Decision, wish: Wish) -> dict[str, Any]:
    """Return what a decision changes beside the model: signals out, a role's words in."""
    changed: dict[str, Any] = {}
    if "messages" in values:
        if decision.messages != list(wish.messages):
            changed["messages"] = decision.messages
    elif decision.system is not None:
        raise bad_request("A role with a system prompt needs /v1/chat/completions", "model")
    elif decision.text[0]["content"] != wish.messages[0]["content"]:
        changed["prompt"] = decision.text[0]["content"]
    said = {key: value for key, value in decision.sampling.items() if values.get(key) is None}
    return changed | said


def _worn(gateway: Gateway, decision: Decision) -> str | None:
    try:
        return gateway.mixtures.worn(decision.mix)
    except Unmerged as error:
        # Never silently the strongest of them alone.
        raise ApiError(501, error.said, code="mixture_not_merged") from error


_ROUTES: dict[str, tuple[str, Any]] = {
    "/health": ("GET", _health),
    "/metrics": ("GET", _metrics),
    "/v1/models": ("GET", _models),
    "/v1/models/{name}": ("GET", _model),
    _CHAT: ("POST", _routed),
    _TEXT: ("POST", _routed),
}
