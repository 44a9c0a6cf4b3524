"""A policy file that is read again when it changes."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark
from loratelier.route.policy import Policy, read_policy


@dataclass(frozen=True)
class _Seen:
    stamp: tuple[int, int, int]
    digest: str


class Watched:
    """A policy file, looked at whenever the policy is used.

    A version that cannot be read is named once, and the last good one stays in force.

    Args:
        path: the file.
        check: refuses a policy for what only its surroundings show.

    Raises:
        InputError: the file is missing or is no policy, the first time.
    """

    def __init__(self, path: Path, check: Callable[[Policy], None]) -> None:
        self.path = path
        self._check = check
        self._seen = _Seen(_stamp(path), "")
        self._policy = self._read(_contents(path))

    @property
    def digest(self) -> str:
        """``sha256:...`` of the file's last version that was read, good or not."""
        return f"sha256:{self._seen.digest}"

    def policy(self) -> Policy:
        """Return the policy as the file says now, or as it said when it last could be read."""
        try:
            stamp = _stamp(self.path)
            if stamp != self._seen.stamp:
                data = _contents(self.path)
                if sha256(data).hexdigest() != self._seen.digest:
                    self._seen = _Seen(stamp, sha256(data).hexdigest())
                    self._policy = self._read(data)
                self._seen = _Seen(stamp, self._seen.digest)
        except InputError as error:
            self._say_once(str(error))
        return self._policy

    def _read(self, data: bytes) -> Policy:
        policy = read_policy(self.path, data)
        self._check(policy)
        self._seen = _Seen(self._seen.stamp, sha256(data).hexdigest())
        self._said: str | None = None
        return policy

    def _say_once(self, error: str) -> None:
        if error != self._said:
            remark(f"{error}. The policy as it was before stays in force")
            self._said = error


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"There is no policy {path}") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"The policy {path} cannot be read ({error.strerror})") from error
