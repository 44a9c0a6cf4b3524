"""The page's server: the built page, and what it may ask, behind the guard."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from loratelier.base import Base
from loratelier.kit.errors import InputError
from loratelier.studio.desk import Desk
from loratelier.studio.draft import Drafts
from loratelier.studio.guard import Guard
from loratelier.studio.hub import Hub
from loratelier.studio.queue import Queue
from loratelier.studio.room import Room
from loratelier.studio.routes import compose, dialogue, editor, jobs, scope, store

PAGE = Path(__file__).parent / "page"


def create_app(token: str, *, bases: tuple[Base, ...] = ()) -> FastAPI:
    """Make the server of a home folder.

    Args:
        token: what a browser must bring once, see :class:`~loratelier.studio.guard.Guard`.
        bases: bases that are in memory already.
    """
    told: list[Hub] = []
    queue = Queue(_after(told))
    hub = Hub(queue.views)
    told.append(hub)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        hub.attach()
        queue.start()
        yield
        queue.close()

    app = FastAPI(
        title="LoRAtelier studio",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.room = Room(Desk(*bases), queue, Drafts(), hub)
    api = APIRouter(prefix="/api")
    for each in (jobs, store, scope, editor, dialogue, compose):
        api.include_router(each.router)
    app.include_router(api)
    app.add_exception_handler(InputError, _bad_input)
    app.add_exception_handler(RequestValidationError, _bad_form)
    app.mount("/assets", StaticFiles(directory=PAGE / "assets", check_dir=False), name="assets")
    app.get("/", response_model=None)(_page)
    app.add_middleware(Guard, token=token)
    return app


def _after(told: list[Hub]) -> Callable[[dict[str, Any]], None]:
    """Return what the queue tells by: jobs change the store, and pages hear of that too."""

    def tell(event: dict[str, Any]) -> None:
        for hub in told:
            hub.tell(event)
            if event.get("state") == "done":
                hub.tell({"type": "changed", "what": "store"})

    return tell


async def _page() -> FileResponse:
    return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})


async def _bad_input(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, InputError):
        raise error
    return _refused(error.what, error.mend)


async def _bad_form(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return _refused(f"{where}: {first['msg']}", None)


def _refused(what: str, mend: str | None) -> JSONResponse:
    # With a status of 200: a browser writes every other one into its log as a fault of the page's,
    # and a person who mistyped a name has done nothing of the kind.
    return JSONResponse({"error": what, "mend": mend}, headers={"x-problem": "1"})
