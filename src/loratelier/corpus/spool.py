"""A list that lives on disk when it grows: an export of a gigabyte does not fit in memory."""

import pickle
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_IN_MEMORY = 32 << 20  # bytes


class Spool(Generic[T]):
    """Appended once, read as often as wanted, in order.

    Holds pickles of our own dataclasses in a temporary file (beyond 32 MiB on disk) that vanishes
    with the object.
    """

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        self._starts = array("Q")
        self._end = 0
        self.extend(items)

    def append(self, item: T) -> None:
        """Add one item at the end."""
        data = pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
        self._file.seek(self._end)
        self._file.write(data)
        self._starts.append(self._end)
        self._end += len(data)

    def extend(self, items: Iterable[T]) -> None:
        """Add items at the end."""
        for item in items:
            self.append(item)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[T]:
        for start in self._starts:
            self._file.seek(start)
            yield pickle.load(self._file)
