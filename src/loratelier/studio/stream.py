"""Answers that come while they are made: lines of JSON, progress first, the result last."""

import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from fastapi.responses import StreamingResponse

from loratelier.kit.errors import InputError
from loratelier.kit.progress import report_to
from loratelier.studio.telling import Tell, Telling


class Left(Exception):
    """The page that asked has gone; raised where it is next told something."""


def streamed(work: Callable[[Tell], dict[str, Any]]) -> StreamingResponse:
    """Run ``work`` in a thread and send what it tells, then ``{"type": "result", ...}``.

    Its progress is told too. Bad input ends the answer with ``{"type": "error", "error", "mend"}``.
    """
    return StreamingResponse(_lines(work), media_type="application/x-ndjson")


def _lines(work: Callable[[Tell], dict[str, Any]]) -> Iterator[str]:
    said: queue.Queue[dict[str, Any] | None] = queue.Queue()
    gone = threading.Event()

    def tell(event: dict[str, Any]) -> None:
        if gone.is_set():
            raise Left
        said.put(event)

    def run() -> None:
        try:
            with report_to(Telling(tell)):
                said.put({"type": "result", **work(tell)})
        except Left:
            pass
        except InputError as error:
            said.put({"type": "error", "error": error.what, "mend": error.mend})
        except Exception as error:
            said.put({"type": "error", "error": f"A fault of ours: {error!r}", "mend": None})
        finally:
            said.put(None)

    threading.Thread(target=run, daemon=True).start()
    try:
        while (event := said.get()) is not None:
            yield json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
    finally:
        gone.set()
