"""The API: OpenAI's paths over the engine, and a few of ours."""

import base64
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loratelier import __version__
from loratelier.kit.errors import InputError
from loratelier.route import Decision
from loratelier.scope.pieces import Pieces
from loratelier.serve.api import errors
from loratelier.serve.api.answers import ChatForm, CompletionForm, Form
from loratelier.serve.api.bodies import (
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    Generation,
    LoadBody,
    Rag,
    UnloadBody,
)
from loratelier.serve.api.choosing import Chooser, Wish
from loratelier.serve.api.errors import ApiError, bad_request, json_response, unknown_model
from loratelier.serve.api.face import Writer
from loratelier.serve.api.generating import Answering, Bounds, Plan, plan
from loratelier.serve.api.keys import Caller, Keys, is_key
from loratelier.serve.api.limits import Limited, Limits
from loratelier.serve.api.metrics import TYPE, Metrics, gauge
from loratelier.serve.api.wardrobe import AUTO, Wardrobe
from loratelier.serve.library import Found, Library, with_notes

_F = TypeVar("_F", bound=Form)


@dataclass
class Api:
    """All that the paths share."""

    engine: Writer
    wardrobe: Wardrobe
    chooser: Chooser
    keys: Keys
    bounds: Bounds
    admin_key: str | None = None
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    libraries: Mapping[str, Library] = field(default_factory=dict)
    began: int = field(default_factory=lambda: int(time.time()))


def make_app(api: Api) -> FastAPI:
    """Return the app; ``app.state.api`` is what it was made of."""
    app = FastAPI(title="LoRAtelier", version=__version__, docs_url=None, redoc_url=None)
    app.state.api = api
    errors.install(app)
    app.add_middleware(Counted, metrics=api.metrics, paths=frozenset(_PATHS))
    app.add_middleware(Limited, limits=api.limits)
    for path, method, answer in _ROUTES:
        app.add_api_route(path, answer, methods=[method], response_class=Response)
    if api.admin_key is not None:
        app.add_api_route("/v1/load_lora_adapter", _load, methods=["POST"])
        app.add_api_route("/v1/unload_lora_adapter", _unload, methods=["POST"])
    return app


def _api(request: Request) -> Api:
    api: Api = request.app.state.api
    return api


def _caller(request: Request) -> Caller:
    return _api(request).keys.caller(request.headers.get("authorization"))


def _admin(request: Request) -> None:
    key = _api(request).admin_key
    if key is None or not is_key(request.headers.get("authorization"), key):
        raise ApiError(401, "This is not the admin key", code="invalid_api_key")


Asker = Annotated[Caller, Depends(_caller)]
Admin = Annotated[None, Depends(_admin)]


async def _health() -> Response:
    return json_response({"status": "ok"})


async def _metrics(request: Request, caller: Asker) -> Response:
    api = _api(request)
    if caller.allowed is not None:
        # Its labels are the names of all adapters.
        raise ApiError(403, "Metrics are for keys that may use every adapter")
    stats = api.engine.stats()
    more = [
        *gauge("loratelier_adapters", "Adapters served.", len(api.wardrobe.names)),
        *gauge("loratelier_requests_running", "Answers being written.", stats.running),
        *gauge("loratelier_requests_waiting", "Answers in the queue.", stats.waiting),
    ]
    return PlainTextResponse(api.metrics.render(more), media_type=TYPE)


async def _models(request: Request, caller: Asker) -> Response:
    api = _api(request)
    return json_response({"object": "list", "data": _listed(api, caller)})


async def _model(name: str, request: Request, caller: Asker) -> Response:
    for each in _listed(_api(request), caller):
        if each["id"] == name:
            return json_response(each)
    raise unknown_model(name)


def _listed(api: Api, caller: Caller) -> list[dict[str, Any]]:
    roots = {costume.name: costume.root for costume in api.wardrobe}
    return listing(api.wardrobe.base_name, *api.chooser.visible(caller), roots, api.began)


def listing(
    base: str,
    adapters: Sequence[str],
    roles: Sequence[str],
    roots: Mapping[str, str],
    created: int,
) -> list[dict[str, Any]]:
    """Return the models as OpenAI's API lists them, with vLLM's ``root`` and ``parent``."""
    models = [(base, base, None), (AUTO, base, base)]
    models += [(name, roots.get(name, name), base) for name in adapters]
    models += [(name, base, base) for name in roles]
    return [
        {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "loratelier",
            "root": root,
            "parent": parent,
        }
        for name, root, parent in models
    ]


async def _chat(body: ChatBody, request: Request, caller: Asker) -> Response:
    api = _api(request)
    messages = [message.plain() for message in body.messages]
    decision = await _decided(api, body, messages, caller)
    shown = body.tools if body.tool_choice != "none" else None
    tools = [tool.model_dump(exclude_none=True) for tool in shown] if shown else None
    reader = api.wardrobe.reader(decision.mix or ())
    # After the decision: what stands in a note is never a signal.
    found = await run_in_threadpool(_looked_up, api, body.rag, decision.messages)
    asked = with_notes(decision.messages, found)
    ids = await run_in_threadpool(reader.chat, asked, tools)
    wanted = plan(
        body, decision, [ids], api.bounds, limit=body.limit, alternatives=body.alternatives
    )
    form = _form(ChatForm, api, body, decision, body.alternatives)
    form.found = None if body.rag is None else found
    return await _answered(api, body, request, caller, wanted, form)


def _looked_up(api: Api, rag: Rag | None, messages: Sequence[Mapping[str, Any]]) -> list[Found]:
    """Return the notes for the last user message.

    Raises:
        ApiError: 404 for a library that is not served.
    """
    if rag is None:
        return []
    if rag.collection not in api.libraries:
        raise ApiError(
            404, f"There is no library {rag.collection!a} here", param="rag", code="not_found"
        )
    asked = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
    return api.libraries[rag.collection].search(str(asked), rag.k)


async def _complete(body: CompletionBody, request: Request, caller: Asker) -> Response:
    api = _api(request)
    decision, texts = await _completed(api, body, caller)
    reader = api.wardrobe.reader(decision.mix or ())
    prompts = [
        await run_in_threadpool(reader.text, each) if isinstance(each, str) else tuple(each)
        for each in texts
    ]
    wanted = plan(
        body, decision, prompts, api.bounds, limit=body.limit or 16, alternatives=body.alternatives
    )
    form = _form(CompletionForm, api, body, decision, body.alternatives)
    if body.echo:
        said = [
            each if isinstance(each, str) else str(api.wardrobe.base.tokenizer.decode(each))
            for each in texts
        ]
        form.echoed = [text for text in said for _ in range(body.n)]
    return await _answered(api, body, request, caller, wanted, form)


async def _completed(
    api: Api, body: CompletionBody, caller: Caller
) -> tuple[Decision, list[str | list[int]]]:
    """Return what is worn for a completion, and its prompts without signals that are followed."""
    texts = body.prompts
    if body.model == AUTO and (len(texts) > 1 or not isinstance(texts[0], str)):
        raise bad_request(f"'{AUTO}' reads one text: give it alone, or name a model", "prompt")
    # A prompt is what the user says; only where it is routed is it looked at.
    first = texts[0] if isinstance(texts[0], str) else ""
    decision = await _decided(api, body, [{"role": "user", "content": first}], caller)
    if decision.system is not None:
        raise bad_request("A role with a system prompt needs /v1/chat/completions", "model")
    return decision, [decision.text[0]["content"]] if body.model == AUTO else texts


async def _decided(
    api: Api, body: Generation, messages: list[dict[str, Any]], caller: Caller
) -> Decision:
    wish = Wish(body.model, messages, body.lora, body.route)
    return await run_in_threadpool(api.chooser.choose, wish, caller)


def _form(
    kind: type[_F], api: Api, body: Generation, decision: Decision, alternatives: int | None
) -> _F:
    base = api.wardrobe.base
    told = None
    if body.route is not None and body.route.explain:
        told = {key: value for key, value in decision.to_json().items() if key != "text"}
    return kind(
        body.model,
        base.fingerprint,
        Pieces(base.tokenizer),
        logprobs=alternatives is not None,
        route=told,
    )


async def _answered(
    api: Api, body: Generation, request: Request, caller: Caller, wanted: Plan, form: Form
) -> Response:
    answering = Answering(api.engine, api.metrics, caller, wanted, form)
    try:
        await answering.begin()
    except InputError:
        for name in wanted.decision.mix or ():
            if name not in api.wardrobe:
                # Unloaded a moment ago; the engine's own words would name the others.
                raise unknown_model(name) from None
        raise
    if body.stream:
        return answering.stream(with_usage=body.wants_usage)
    return await answering.whole(request)


async def _embed(body: EmbeddingBody, request: Request, caller: Asker) -> Response:
    api = _api(request)
    api.chooser.require_base(body.model, caller)
    reader = api.wardrobe.reader(())
    ids = [await run_in_threadpool(reader.text, text) for text in body.texts]
    for each in ids:
        api.bounds.room(len(each), None)
    count = sum(map(len, ids))
    caller.admit(count)
    vectors = await run_in_threadpool(api.engine.embed, ids)
    data = [
        {"object": "embedding", "index": n, "embedding": _vector(vector, body.encoding_format)}
        for n, vector in enumerate(vectors)
    ]
    counts = {"prompt_tokens": count, "total_tokens": count}
    return json_response({"object": "list", "data": data, "model": body.model, "usage": counts})


def _vector(vector: list[float], form: str) -> list[float] | str:
    if form == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


async def _load(body: LoadBody, request: Request, _: Admin) -> Response:
    wardrobe = _api(request).wardrobe
    if body.lora_name in wardrobe and not body.load_inplace:
        raise bad_request(f"The adapter {body.lora_name!a} is loaded already", "lora_name")
    try:
        await run_in_threadpool(
            wardrobe.load, body.lora_name, body.lora_path, replace=body.load_inplace
        )
    except InputError as error:
        raise bad_request(str(error), "lora_name") from error
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")


async def _unload(body: UnloadBody, request: Request, _: Admin) -> Response:
    wardrobe = _api(request).wardrobe
    if body.lora_name not in wardrobe:
        raise unknown_model(body.lora_name)
    await run_in_threadpool(wardrobe.unload, body.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")


_ROUTES: tuple[tuple[str, str, Any], ...] = (
    ("/health", "GET", _health),
    ("/metrics", "GET", _metrics),
    ("/v1/models", "GET", _models),
    ("/v1/models/{name}", "GET", _model),
    ("/v1/chat/completions", "POST", _chat),
    ("/v1/completions", "POST", _complete),
    ("/v1/embeddings", "POST", _embed),
)
_PATHS = [path for path, _, _ in _ROUTES]


class Counted:
    """Counts answers by path and status; a path that is none of ours is ``other``."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in self._paths else "other"
                self._metrics.requests.add(1, path, str(message["status"]))
            await send(message)

        await self._app(scope, receive, counted if scope["type"] == "http" else send)
