"""The process of one job: ``python -m loratelier.studio.worker FOLDER``.

It tells what happens in ``events.jsonl``. When its standard input closes, the server is gone, and
so is it: nothing goes on computing that no page can stop.
"""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loratelier.kit.errors import InputError
from loratelier.kit.files import write_atomic
from loratelier.kit.home import room
from loratelier.kit.progress import report_to
from loratelier.studio.jobs import EVENTS, JOB, RESULT, Job
from loratelier.studio.telling import Telling
from loratelier.studio.work import do


class _Log:
    """Appends events, a line each, from any thread."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        # A line that an earlier start was cut off in would swallow the next one.
        _end_line(path)
        self._stream = path.open("a", encoding="utf-8")

    def __call__(self, event: dict[str, Any]) -> None:
        with self._lock:
            self._stream.write(json.dumps(event, ensure_ascii=False) + "\n")
            self._stream.flush()


def _end_line(path: Path) -> None:
    if not path.exists():
        return
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        write_atomic(path, whole)


def main(folder: Path) -> int:
    """Do the job of a folder; 0 done, 1 it failed."""
    threading.Thread(target=_leave_with_server, daemon=True).start()
    job = Job.model_validate_json((folder / JOB).read_bytes())
    log = _Log(folder / EVENTS)
    log({"type": "start", "resume": job.resume})
    try:
        with report_to(Telling(log)), _curves(job, log):
            result = do(job.kind, job.args, resume=job.resume)
    except InputError as error:
        log({"type": "error", "error": error.what, "mend": error.mend})
        return 1
    except Exception as error:
        traceback.print_exc()
        log({"type": "error", "error": f"{type(error).__name__}: {error}", "mend": None})
        return 1
    write_atomic(folder / RESULT, json.dumps(result, ensure_ascii=False))
    log({"type": "end"})
    return 0


def _leave_with_server() -> None:
    # Not through sys.stdin: its lock, held here for good, would not let the process end.
    while os.read(0, 1):
        pass
    os._exit(3)


@contextmanager
def _curves(job: Job, log: _Log) -> Iterator[None]:
    """Tell the lines of a training's journal as they are written: the journal goes with the run."""
    if job.kind != "train":
        yield
        return
    over = threading.Event()
    follower = threading.Thread(target=_follow, args=(job.args["name"], log, over), daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()


def _follow(name: str, log: _Log, over: threading.Event) -> None:
    from loratelier.train.journal import FILE

    path = room("runs") / name / FILE
    began, told = time.time(), 0
    while True:
        last = over.wait(0.5)
        try:
            # A journal of an earlier run is not ours until this one has opened it anew.
            fresh = path.stat().st_mtime >= began
            text = path.read_text(encoding="utf-8") if fresh else ""
        except OSError:
            text = ""
        lines = text.split("\n")[:-1]
        for line in lines[told:]:
            log({"type": "curve", "point": json.loads(line)})
        told = max(told, len(lines))
        if last:
            return


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
