"""The queue: one job at a time, each in a process of its own, known again after a restart."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loratelier.kit.errors import InputError
from loratelier.kit.home import VARIABLE, home
from loratelier.studio.jobs import OVER, Job, Kind, Shelf, State
from loratelier.studio.work import read_args

_LOOK = 0.2  # seconds between two looks at the running job's events
_GRACE = 10.0  # seconds that a job has to leave before it is made to


class Queue:
    """Runs jobs in the order in which they were asked for.

    Args:
        tell: hears ``{"type": "job", ...}`` whenever a job changes.
    """

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self.shelf = Shelf()
        self._tell = tell
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {job.id: job for job in self.shelf.all()}
        self._bars: dict[str, dict[int, dict[str, Any]]] = {}
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        for job in self._jobs.values():
            if job.state in ("running", "stopping"):
                # The server before this one ended in the middle of it.
                state: State = "waiting" if job.state == "running" else "stopped"
                self._put(job, state=state, resume=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self) -> None:
        """Stop working; what runs goes on when the next server starts."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, kind: Kind, title: str, args: dict[str, Any]) -> Job:
        """Put a job at the end.

        Raises:
            InputError: arguments that its kind does not take.
        """
        read_args(kind, args)
        with self._lock:
            job = self.shelf.new(kind, title, args)
            self._jobs[job.id] = job
            self._tell(self.view(job))
        self._wake.set()
        return job

    def stop(self, name: str) -> None:
        """Stop a job, now if it runs; a training keeps its saved state."""
        with self._lock:
            job = self._of(name)
            if job.state == "waiting":
                self._put(job, state="stopped")
            elif job.state == "running":
                self._put(job, state="stopping")
        self._wake.set()

    def again(self, name: str) -> None:
        """Go on with a job that was stopped or failed; a training from its saved state."""
        with self._lock:
            job = self._of(name)
            if job.state not in ("stopped", "failed"):
                raise InputError(f"'{job.title}' is not stopped", "Wait until it is")
            self._put(job, state="waiting", resume=True, error=None, mend=None)
        self._wake.set()

    def remove(self, name: str) -> None:
        """Forget a job that is over."""
        with self._lock:
            job = self._of(name)
            if job.state not in OVER:
                raise InputError(f"'{job.title}' is not over", "Stop it first")
            for file in self.shelf.path(name).iterdir():
                file.unlink()
            self.shelf.path(name).rmdir()
            del self._jobs[name]
            self._tell({"type": "job-gone", "id": name})

    def views(self) -> list[dict[str, Any]]:
        """Return every job as its event, oldest first."""
        with self._lock:
            return [self.view(job) for job in self._jobs.values()]

    def states(self) -> dict[str, State]:
        """Return the state of every job."""
        with self._lock:
            return {name: job.state for name, job in self._jobs.items()}

    def view(self, job: Job) -> dict[str, Any]:
        """Return a job as an event."""
        bars = self._bars.get(job.id, {})
        result = self.shelf.result(job.id) if job.state == "done" else None
        return {
            "type": "job",
            **job.model_dump(mode="json"),
            "bars": list(bars.values()),
            "result": result,
        }

    def _of(self, name: str) -> Job:
        self.shelf.path(name)
        return self._jobs[name]

    def _put(self, job: Job, **changes: Any) -> Job:
        """Write down a change of a job, and tell it."""
        with self._lock:
            changed = job.model_copy(update=changes)
            self.shelf.write(changed)
            self._jobs[job.id] = changed
            self._tell(self.view(changed))
            return changed

    def _run(self) -> None:
        while not self._closing:
            with self._lock:
                waiting = [job for job in self._jobs.values() if job.state == "waiting"]
            if not waiting:
                self._wake.wait()
                self._wake.clear()
                continue
            self._work(self._put(waiting[0], state="running"))

    def _work(self, job: Job) -> None:
        folder = self.shelf.path(job.id)
        told = len(self.shelf.events(job.id))
        process = self._begin(folder)
        self._bars[job.id] = {}
        failure: dict[str, Any] = {}
        ended = False
        while not ended:
            ended = self._ended(process, job)
            events = self.shelf.events(job.id, told)
            told += len(events)
            failure = next((e for e in events if e["type"] == "error"), failure)
            if events:
                self._hear(job, events)
        self._bars.pop(job.id, None)
        self._settle(job, process.returncode, failure)

    def _begin(self, folder: Path) -> "subprocess.Popen[bytes]":
        # Its standard input is a pipe that nobody writes to: it ends when this server does.
        with (folder / "output.txt").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "loratelier.studio.worker", str(folder)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=os.environ | {VARIABLE: str(home()), "TQDM_DISABLE": "1"},
                start_new_session=True,  # Ctrl-C in the terminal is the server's to deal with
            )

    def _ended(self, process: "subprocess.Popen[bytes]", job: Job) -> bool:
        """Wait a little; True once the process is gone."""
        if self._closing or self._jobs[job.id].state == "stopping":
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        else:
            time.sleep(_LOOK)
        if process.poll() is None:
            return False
        if process.stdin is not None:
            process.stdin.close()
        return True

    def _hear(self, job: Job, events: list[dict[str, Any]]) -> None:
        bars = self._bars[job.id]
        for event in events:
            if event["type"] == "bar":
                bars[event["bar"]] = event
            elif event["type"] == "bar-end":
                bars.pop(event["bar"], None)
        self._tell(self.view(self._jobs[job.id]))

    def _settle(self, job: Job, code: int, failure: dict[str, Any]) -> None:
        now = self._jobs[job.id]
        if self._closing and now.state == "running" and code != 0:
            return  # written as running: the next server goes on with it
        if code == 0:
            self._put(now, state="done")
        elif now.state == "stopping":
            self._put(now, state="stopped")
        else:
            error = failure.get("error") or f"Its process ended with status {code}"
            self._put(now, state="failed", error=error, mend=failure.get("mend"))


def as_line(event: dict[str, Any]) -> str:
    """Return an event as one line of JSON."""
    return json.dumps(event, ensure_ascii=False, allow_nan=False)
