"""Looking: an inspection once, then whatever a pick asks of it."""

import secrets
from typing import Any

import torch
from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse
from torch import Tensor

from loratelier.kit.errors import InputError
from loratelier.kit.models import Strict
from loratelier.scope import Inspection, inspect_prompt
from loratelier.scope.attention_shift import AttentionShift
from loratelier.scope.pictures.book import pictures
from loratelier.studio.desk import opened, spec_of
from loratelier.studio.room import Here
from loratelier.studio.stream import streamed
from loratelier.studio.telling import Tell

router = APIRouter()


class Asked(Strict):
    """What is to be looked at; see ``loratelier inspect``."""

    adapter: str
    prompt: str
    before: str | None = None
    raw: bool = False
    strength: float | None = None
    parts: tuple[str, ...] = ("attention", "lens", "sites", "weights", "experts")
    max_new_tokens: int = 40


@router.post("/scope/look")
def look(asked: Asked, here: Here) -> StreamingResponse:
    """Inspect a prompt; the result is ``Inspection.to_json()`` with an ``id`` to pick in."""

    def work(_: Tell) -> dict[str, Any]:
        worn = opened(asked.adapter)
        with here.desk.at_work():
            seen = inspect_prompt(
                here.desk.base(spec_of(worn)),
                worn,
                asked.prompt,
                before=opened(asked.before) if asked.before else None,
                raw=asked.raw,
                strength=asked.strength
                if asked.strength is not None
                else (worn.card.strength or 1.0),
                parts=asked.parts,
                max_new_tokens=asked.max_new_tokens,
            )
        name = secrets.token_hex(8)
        here.desk.keep(name, seen)
        drawn = [{"name": each.name, "says": list(each.says)} for each in pictures(seen)]
        return {"id": name, "seen": seen.to_json(), "pictures": drawn}

    return streamed(work)


@router.get("/scope/{name}/pick/{at}")
def pick(name: str, at: int, here: Here) -> dict[str, Any]:
    """Return how much each head's attention moves where a token looks: ``[layer][head]``."""
    shift = _attention(here.desk.look(name))
    _require_place(shift, at)
    return {"at": at, "layers": list(shift.layers), "shift": shift.by_query[:, :, at].tolist()}


@router.get("/scope/{name}/map")
def attention_map(
    name: str, here: Here, side: str = "after", layer: int = -1, head: int = -1
) -> Response:
    """Return an attention map, float32 [T, T] row by row, little-endian: who looks at whom.

    The mean over all layers and heads; or of one head, by its place in ``layers``, where its rows
    were kept. ``side`` is before or after.
    """
    shift = _attention(here.desk.look(name))
    if side not in ("before", "after"):
        raise InputError(f"There is no side '{side}'", "It is before or after")
    if layer < 0:
        made = shift.mean_before if side == "before" else shift.mean_after
    else:
        made = _of_head(shift, side, layer, head)
    data = made.to(torch.float32).contiguous().numpy().astype("<f4").tobytes()
    return Response(data, media_type="application/octet-stream")


@router.get("/scope/{name}/picture/{which}.svg")
def picture(name: str, which: str, here: Here, language: str = "en") -> Response:
    """Return one of the pictures that ``inspect --svg`` writes."""
    if language not in ("en", "ru"):
        raise InputError(f"There is no language '{language}' here", "It is en or ru")
    for each in pictures(here.desk.look(name)):
        if each.name == which:
            # Drawn as an image: it runs nothing, and its style is its own.
            policy = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
            return Response(each.to_svg(language), media_type="image/svg+xml", headers=policy)
    raise InputError(f"There is no picture '{which}' of this look")


def _attention(seen: Inspection) -> AttentionShift:
    if seen.attention is None:
        raise InputError("Attention was not looked at", "Look again with it")
    return seen.attention


def _require_place(shift: AttentionShift, at: int) -> None:
    if not 0 <= at < len(shift.tokens):
        raise InputError(f"There is no position {at}", f"The text has {len(shift.tokens)} tokens")


def _of_head(shift: AttentionShift, side: str, layer: int, head: int) -> Tensor:
    count = len(shift.tokens)
    if len(shift.queries) != count:
        raise InputError("The rows of single heads were not kept: the text is too long")
    whole = shift.before if side == "before" else shift.after
    if not (0 <= layer < whole.shape[0] and 0 <= head < whole.shape[1]):
        raise InputError(f"There is no head {head} of layer {layer}")
    return whole[layer, head]
