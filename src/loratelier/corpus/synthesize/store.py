"""What was answered so far: each answer on disk as soon as it is there."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loratelier.corpus.synthesize.asked import Answer
from loratelier.kit.errors import InputError

_OURS = 0x4C41  # SQLite's application_id of these files


def key_of(request: Mapping[str, Any]) -> str:
    """Return a name for a request that changes with anything that it is made of."""
    written = json.dumps(request, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(written.encode()).hexdigest()


class Store:
    """Answers by the key of their request, in an SQLite file beside the corpus that is made.

    Each is committed before the next request begins: whatever kills the run, nothing that was
    answered is asked again. One run at a time; the lock goes with the process. Holds answers and
    token counts, never a key to an API.

    Raises:
        InputError: another run has it, it cannot be written, or it is none of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=0.2, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{path} cannot be written ({error})") from error
        try:
            self._open()
        except sqlite3.OperationalError as error:
            self._file.close()
            if "locked" in str(error):
                raise InputError(
                    f"Another run is writing to {path}", "Wait for it, or choose another folder"
                ) from error
            raise InputError(f"{path} cannot be written ({error})") from error
        except sqlite3.DatabaseError as error:
            self._file.close()
            raise _foreign(path) from error
        except InputError:
            self._file.close()
            raise

    def get(self, key: str) -> Answer | None:
        """Return the answer that was stored under a key."""
        with self._lock:
            found = self._file.execute(
                "SELECT text, prompt_tokens, answer_tokens, estimated, cut FROM answers "
                "WHERE key = ?",
                (key,),
            ).fetchone()
        if found is None:
            return None
        text, prompt_tokens, answer_tokens, estimated, cut = found
        return Answer(text, prompt_tokens, answer_tokens, bool(estimated), bool(cut))

    def put(self, key: str, answer: Answer) -> None:
        """Store an answer; when this returns a kill cannot lose it.

        Raises:
            InputError: the disk is full.
        """
        record = (
            key,
            answer.text,
            answer.prompt_tokens,
            answer.answer_tokens,
            answer.estimated,
            answer.cut,
        )
        try:
            with self._lock, self._file:
                self._file.execute("INSERT OR REPLACE INTO answers VALUES (?,?,?,?,?,?)", record)
        except sqlite3.OperationalError as error:
            raise InputError(f"{self.path} cannot be written ({error})") from error

    def close(self) -> None:
        """Let another run have it."""
        self._file.close()

    def _open(self) -> None:
        # Kept from here to the end: a second run would pay for the same answers.
        self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._file.execute("BEGIN EXCLUSIVE")
        (mark,) = self._file.execute("PRAGMA application_id").fetchone()
        (tables,) = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if mark != _OURS and tables:
            raise _foreign(self.path)
        self._file.execute(f"PRAGMA application_id = {_OURS}")
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT NOT NULL, "
            "prompt_tokens INTEGER NOT NULL, answer_tokens INTEGER NOT NULL, "
            "estimated INTEGER NOT NULL, cut INTEGER NOT NULL)"
        )
        self._file.commit()


def _foreign(path: Path) -> InputError:
    return InputError(f"{path} is no file of answers", "Move it away, or choose another folder")
