"""The queue, and the feed that every open page listens to."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from loratelier.kit.models import Strict
from loratelier.studio.jobs import OVER, Kind
from loratelier.studio.queue import as_line
from loratelier.studio.room import Here, Room
from loratelier.studio.work import read_args, recipe_of

router = APIRouter()
_STEP = 0.3  # seconds between two looks at a job's events
_PULSE = 15.0  # seconds of silence after which a connection is shown to be alive


class NewJob(Strict):
    """What is to be done."""

    kind: Kind
    title: str
    args: dict[str, Any]


@router.post("/jobs")
def add(asked: NewJob, here: Here) -> dict[str, Any]:
    """Put a job into the queue."""
    if asked.kind == "train":
        # A bad recipe is said at once, and not when its turn comes.
        recipe_of(read_args("train", asked.args))
    return here.queue.view(here.queue.add(asked.kind, asked.title, asked.args))


@router.post("/jobs/{name}/stop")
def stop(name: str, here: Here) -> dict[str, bool]:
    """Stop a job."""
    here.queue.stop(name)
    return {"ok": True}


@router.post("/jobs/{name}/again")
def again(name: str, here: Here) -> dict[str, bool]:
    """Go on with a stopped or failed job."""
    here.queue.again(name)
    return {"ok": True}


@router.delete("/jobs/{name}")
def remove(name: str, here: Here) -> dict[str, bool]:
    """Forget a job that is over."""
    here.queue.remove(name)
    return {"ok": True}


@router.get("/jobs")
def jobs(here: Here) -> list[dict[str, Any]]:
    """Return every job."""
    return here.queue.views()


@router.get("/events")
async def events(request: Request, here: Here) -> StreamingResponse:
    """Everything that changes, as server-sent events; see :class:`~loratelier.studio.hub.Hub`."""
    seen = request.headers.get("last-event-id")
    return _sse(_lines(here, seen))


async def _lines(here: Room, seen: str | None) -> AsyncIterator[str]:
    async for number, event in here.hub.follow(seen):
        yield f"id: {number}\ndata: {as_line(event)}\n\n"


@router.get("/jobs/{name}/events")
async def told(name: str, request: Request, here: Here) -> StreamingResponse:
    """Everything that one job tells, from its beginning or after ``Last-Event-ID``."""
    seen = request.headers.get("last-event-id", "")
    here.queue.shelf.path(name)
    return _sse(_told(here, name, int(seen) if seen.isdigit() else 0))


async def _told(here: Room, name: str, after: int) -> AsyncIterator[str]:
    while name in here.queue.states():
        over = here.queue.states()[name] in OVER
        for event in await asyncio.to_thread(here.queue.shelf.events, name, after):
            after += 1
            yield f"id: {after}\ndata: {as_line(event)}\n\n"
        if over:
            break
        await asyncio.sleep(_STEP)
    yield "event: over\ndata: {}\n\n"


def _sse(lines: AsyncIterator[str]) -> StreamingResponse:
    return StreamingResponse(
        _with_pulse(lines),
        media_type="text/event-stream",
        headers={"cache-control": "no-store"},
    )


async def _with_pulse(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """Send a comment where nothing came for a while: else a dead connection is not noticed."""
    waiting: asyncio.Future[str] | None = None
    try:
        while True:
            if waiting is None:
                waiting = asyncio.ensure_future(anext(lines))
            done, _ = await asyncio.wait({waiting}, timeout=_PULSE)
            if not done:
                yield ": still here\n\n"
                continue
            line, waiting = waiting, None
            try:
                yield line.result()
            except StopAsyncIteration:
                return
    finally:
        if waiting is not None:
            waiting.cancel()
