"""Jobs as files: what is asked, how far it is, what came of it.

A job is a folder under ``LORATELIER_HOME/studio/jobs``: ``job.json``, which the server alone writes
and writes whole; ``events.jsonl``, which the job's process alone appends to; ``result.json``, which
it writes at the end. So a server that starts knows every job of the one before it.
"""

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from loratelier.kit.errors import InputError
from loratelier.kit.files import write_atomic
from loratelier.kit.home import room
from loratelier.kit.models import Strict

Kind = Literal["corpus", "train", "check"]
State = Literal["waiting", "running", "stopping", "stopped", "done", "failed"]
OVER: frozenset[State] = frozenset({"stopped", "done", "failed"})

JOB, EVENTS, RESULT = "job.json", "events.jsonl", "result.json"


class Job(Strict):
    """One job. ``args`` are what its kind takes, see :mod:`loratelier.studio.work`.

    ``resume`` says that it goes on with what an earlier start left; ``error`` and ``mend`` are what
    went wrong.
    """

    id: str
    kind: Kind
    title: str
    args: dict[str, Any]
    state: State = "waiting"
    created: str
    resume: bool = False
    error: str | None = None
    mend: str | None = None


class Shelf:
    """The jobs of the home folder."""

    def __init__(self) -> None:
        self.folder = room("studio") / "jobs"
        self.folder.mkdir(exist_ok=True)

    def new(self, kind: Kind, title: str, args: dict[str, Any]) -> Job:
        """Write down a job that waits."""
        now = datetime.now(UTC)
        name = f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
        created = now.isoformat(timespec="seconds")
        job = Job(id=name, kind=kind, title=title, args=args, created=created)
        (self.folder / name).mkdir()
        self.write(job)
        return job

    def write(self, job: Job) -> None:
        """Write a job's state, whole."""
        write_atomic(self.path(job.id) / JOB, job.model_dump_json(indent=1))

    def all(self) -> list[Job]:
        """Return every job that can be read, oldest first."""
        found = []
        for path in sorted(self.folder.glob(f"*/{JOB}")):
            try:
                found.append(Job.model_validate_json(path.read_bytes()))
            except (InputError, ValidationError, OSError):
                continue  # of another version, or being removed: nothing to show
        return found

    def path(self, name: str) -> Path:
        """Return a job's folder.

        Raises:
            InputError: there is no such job.
        """
        path = self.folder / name
        if path.parent != self.folder or not path.is_dir():
            raise InputError(f"There is no job '{name}'", "It may have been removed")
        return path

    def events(self, name: str, after: int = 0) -> list[dict[str, Any]]:
        """Return what a job's process has told, from event ``after`` on; a cut line is not yet."""
        path = self.path(name) / EVENTS
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines[after:]]

    def result(self, name: str) -> dict[str, Any] | None:
        """Return what came of a job; None while there is nothing."""
        path = self.path(name) / RESULT
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
