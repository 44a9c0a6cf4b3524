"""Files and the members of archives, opened as often as they are read."""

import codecs
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from loratelier.corpus.sources import unicode_form
from loratelier.kit.errors import InputError

HEAD = 64 << 10  # bytes by which a file is recognised

# What reading a damaged or an encrypted archive raises.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    NotImplementedError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    IndexError,
)


@dataclass(frozen=True)
class Blob:
    """A file or an archive's member: its ``name`` in lineage, how to open it and to read it all.

    ``size`` is what it has in bytes, or says that it has when it is packed.
    """

    name: str
    size: int
    open: Callable[[], BinaryIO]
    read: Callable[[], bytes]

    def head(self) -> bytes:
        """Return its first bytes."""
        with self.open() as stream:
            return stream.read(HEAD)


def file_blob(path: Path, name: str, moved: Callable[[float], None]) -> Blob:
    """Return a file to read; ``moved`` is told how many bytes further the reading is.

    Opening it and reading it raise InputError when the system does not let us.
    """
    place = _Place(moved)

    def opened() -> BinaryIO:
        try:
            return io.BufferedReader(_Watched(path.open("rb", buffering=0), place))
        except OSError as error:
            raise _unreadable(path, error) from error

    def read() -> bytes:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from error
        place.reached(len(data))
        return data

    return Blob(name, path.stat().st_size, opened, read)


def _unreadable(path: Path, error: OSError) -> InputError:
    """Return the error for a file that the system does not let us read."""
    return InputError(
        f"{path} cannot be read ({error.strerror})", "Check its permissions, or leave it out"
    )


def members(archive: zipfile.ZipFile, name: str) -> Iterator[Blob]:
    """Yield the files of an archive, named by the archive and their path in it."""
    for info in archive.infolist():
        if not info.is_dir():
            yield _member(archive, info, name)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Blob:
    def opened() -> BinaryIO:
        return io.BufferedReader(archive.open(info))  # type: ignore[type-var]

    return Blob(f"{name}/{info.filename}", info.file_size, opened, lambda: archive.read(info))


def utf8(stream: BinaryIO, head: bytes) -> BinaryIO:
    """Return a stream of UTF-8 without a byte order mark, whatever Unicode form ``stream`` has."""
    encoding = unicode_form(head)
    if encoding is None:
        return stream
    return io.BufferedReader(_Recoded(stream, encoding), HEAD)


class _Place:
    """How far a file was read, however often it was opened."""

    def __init__(self, moved: Callable[[float], None]) -> None:
        self._moved = moved
        self._far = 0

    def reached(self, offset: int) -> None:
        """Tell of bytes that were not read before."""
        if offset > self._far:
            self._moved(offset - self._far)
            self._far = offset


class _Watched(io.RawIOBase):
    """A file that tells how far it was read."""

    def __init__(self, stream: io.FileIO, place: _Place) -> None:
        self._stream = stream
        self._place = place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = self._stream.readinto(buffer) or 0
        self._place.reached(self._stream.tell())
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Recoded(io.RawIOBase):
    """Decodes a stream of one encoding into UTF-8 as it is read."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._left = b""
        self._done = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._left and not self._done:
            raw = self._stream.read(HEAD)
            self._done = not raw
            text = self._decoder.decode(raw, final=self._done)
            # A lone surrogate cannot be decoded from UTF-16, only "replaced".
            self._left = text.encode("utf-8", "replace")
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()
