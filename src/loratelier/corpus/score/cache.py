"""Losses that were computed before, kept in the home folder by content and base.

One SQLite file a base (and dtype and quantization, which change the numbers). Every batch is
committed as it comes, so a run that is killed goes on where it was.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from loratelier.base import Base
from loratelier.corpus.score.layout import Passage
from loratelier.corpus.score.metrics import Losses
from loratelier.kit.errors import InputError
from loratelier.kit.home import room
from loratelier.kit.progress import remark

# Raised when what is stored under a key changes.
_VERSION = 1
_AT_ONCE = 500  # SQLite takes a bounded number of values in one question
_PATIENCE = 60.0


def key_of(passage: Passage) -> bytes:
    """Return the SHA-256 of the token ids and of which of them are scored."""
    digest = hashlib.sha256(f"{_VERSION}\0".encode())
    digest.update(np.asarray(passage.ids, dtype=np.int64).tobytes())
    digest.update(b"\0")
    digest.update(np.asarray(passage.places, dtype=np.int64).tobytes())
    return digest.digest()


class Cache:
    """Losses by key: read in bulk, written batch by batch."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Losses]:
        """Return the losses that are here (float32 [places]) by their keys."""
        found: dict[bytes, Losses] = {}
        for begin in range(0, len(keys), _AT_ONCE):
            part = keys[begin : begin + _AT_ONCE]
            marks = ",".join("?" * len(part))
            rows = self._connection.execute(
                f"SELECT key, losses FROM losses WHERE key IN ({marks})", part
            )
            found |= {key: np.frombuffer(blob, dtype="<f4") for key, blob in rows}
        return found

    def write(self, found: Mapping[bytes, Losses]) -> None:
        """Keep losses; when this returns a kill cannot lose them."""
        with self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO losses VALUES (?, ?)",
                [(key, losses.astype("<f4").tobytes()) for key, losses in found.items()],
            )


def cache_file(base: Base) -> Path:
    """Return the file for a base as it is loaded: its fingerprint, dtype and quantization."""
    print_ = base.fingerprint.removeprefix("sha256:")[:32]
    kind = str(base.dtype).removeprefix("torch.")
    quantized = f"-{base.quantization}" if base.quantization else ""
    return room("scores") / f"{print_}-{kind}{quantized}.sqlite"


@contextmanager
def open_cache(base: Base) -> Iterator[Cache]:
    """Open the losses kept for a base; a damaged file is set aside and a new one begun.

    Raises:
        InputError: another run holds the file for too long, or it cannot be written.
    """
    path = cache_file(base)
    try:
        connection = _connect(path)
    except sqlite3.OperationalError as error:
        raise InputError(
            f"The scores kept in {path} cannot be opened ({error})", "Wait for the other run"
        ) from error
    except sqlite3.DatabaseError:
        aside = path.with_suffix(".damaged")
        path.replace(aside)
        remark(f"The scores kept in {path.name} are damaged; set aside as {aside.name}")
        connection = _connect(path)
    try:
        yield Cache(connection)
    finally:
        connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_PATIENCE)
    try:
        # A log beside the file: a commit costs no wait for the disk and a kill loses none.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS losses (key BLOB PRIMARY KEY, losses BLOB) WITHOUT ROWID"
        )
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection
