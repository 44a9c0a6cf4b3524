"""JSON read a value at a time, however large the file, and read on after a broken one.

A general streaming parser stops at the first error and does not say where it is. An export of ten
years must not be lost for one bad byte, so values are cut out by their brackets, each is parsed by
itself, and after a value that does not parse the next one is searched by how values begin.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from loratelier.corpus.importers.parts import Broken

LIMIT = 256 << 20  # bytes of one value; a larger one is broken or no conversation
_CHUNK = 1 << 20
_ATTEMPTS = 200  # places tried after a broken value before the rest is given up
_BUDGET = 2 * LIMIT  # bytes looked at on the way
_TAIL = 4096  # bytes kept while searching, so that a beginning is not cut in two

_SPACE = re.compile(rb"[ \t\r\n]*")
_SCALAR = re.compile(rb"[^\s,\[\]{}:\"]+")
# A string that is still open at the end of the buffer lacks group 1.
_PARTS = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[{}\[\]]', re.DOTALL)
_FIRST_KEY = re.compile(rb'\{\s*("(?:[^"\\]|\\.){1,64}")\s*:')


class Malformed(ValueError):
    """The bytes at ``offset`` are not what JSON allows there."""

    def __init__(self, offset: int, what: str) -> None:
        self.offset = offset
        super().__init__(f"{what} at byte {offset}")


@dataclass(frozen=True)
class Value:
    """One parsed value. ``damaged``: bytes that are no UTF-8 became U+FFFD."""

    number: int
    data: Any
    damaged: bool


class Scanner:
    """Walks a stream of JSON; the caller asks for what it expects next."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._data = b""
        self._at = 0
        self._value = 0  # where the value that was asked for last begins
        self._before = 0  # bytes of the stream that left the buffer

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self._before + self._at

    def peek(self) -> bytes:
        """Return the next byte that is no white space; empty at the end."""
        while True:
            self._at = _end(_SPACE, self._data, self._at)
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._more():
                return b""

    def expect(self, byte: bytes) -> None:
        """Step over one byte.

        Raises:
            Malformed: something else stands there.
        """
        found = self.peek()
        if found != byte:
            wanted = byte.decode()
            raise Malformed(self.offset, f"{wanted} expected, {_show(found)} found")
        self._at += 1

    def passes(self, byte: bytes) -> bool:
        """Step over a byte if it comes next, and say whether it did."""
        if self.peek() != byte:
            return False
        self._at += 1
        return True

    def entries(self) -> Iterator[str]:
        """Enter an object and yield its keys; the caller reads each value before the next key."""
        self.expect(b"{")
        while not self.passes(b"}"):
            key = self.value()
            if not key.startswith(b'"'):
                raise Malformed(self.offset, "a key expected")
            self.expect(b":")
            yield str(parse(key)[0])
            if not self.passes(b",") and self.peek() != b"}":
                raise Malformed(self.offset, f"a comma expected, {_show(self.peek())} found")

    def value(self) -> bytes:
        """Return the bytes of the next value and step over it.

        Raises:
            Malformed: there is none, or it has no end within :data:`LIMIT` bytes.
        """
        first = self.peek()
        if self._at > _CHUNK:
            self._drop_read()
        self._value = self._at
        end = self._close(self._at) if first in (b"{", b"[", b'"') else self._scalar()
        self._at = end
        return self._data[self._value : end]

    def find_next(self, sign: re.Pattern[bytes], accept: Callable[[bytes], bool]) -> bool:
        """Go to the next value, in or after the last one, that begins like ``sign`` and is one.

        ``sign`` ends before the value's first byte. False: none is left, and the stream is read.
        """
        at, budget = self._value, _BUDGET
        for _ in range(_ATTEMPTS):
            if budget <= 0:
                break
            found = sign.search(self._data, at)
            while found is None:
                self._at = max(at, len(self._data) - _TAIL)
                self._drop_read()
                at = 0
                if not self._more():
                    self._at = len(self._data)
                    return False
                found = sign.search(self._data, at)
            at = found.end()
            try:
                end = self._close(at)
            except Malformed:
                budget -= len(self._data) - at
                continue
            budget -= end - at
            if accept(self._data[at:end]):
                self._at = at
                return True
        self._at = len(self._data)
        while self._more():
            self._at = len(self._data)
            self._drop_read()
        return False

    def goes_on(self, closes: bytes, accept: Callable[[bytes], bool]) -> bool:
        """Say whether the end or another value looked for comes next; nothing is stepped over."""
        behind = self._at
        self.passes(b",")
        first = self.peek()
        at, self._at = self._at, behind
        if first != b"{":
            return first == closes
        try:
            return accept(self._data[at : self._close(at)])
        except Malformed:
            return False

    def ahead(self, limit: int = 300) -> bytes:
        """Return some of the bytes that come next."""
        return self._data[self._at : self._at + limit]

    def _close(self, start: int) -> int:
        """Return where the value that opens at ``start`` ends."""
        at, depth = start, 0
        while True:
            opened = False
            for part in _PARTS.finditer(self._data, at):
                byte = self._data[part.start()]
                if byte == 0x22:
                    if not part[1]:
                        at, opened = part.start(), True
                        break
                elif byte in b"{[":
                    depth += 1
                else:
                    depth -= 1
                if depth <= 0:
                    return part.end()
            if not opened:
                at = len(self._data)
            if len(self._data) - start > LIMIT:
                raise Malformed(self._before + start, f"no end within {LIMIT >> 20} MiB")
            if not self._more():
                raise Malformed(self._before + start, "the file ends inside a value that begins")

    def _scalar(self) -> int:
        while True:
            found = _SCALAR.match(self._data, self._at)
            if found and found.end() < len(self._data):
                return found.end()
            if len(self._data) - self._at > LIMIT or not self._more():
                break
        if found is None:
            raise Malformed(self.offset, f"a value expected, {_show(self.peek())} found")
        return found.end()

    def _drop_read(self) -> None:
        self._data = self._data[self._at :]
        self._before += self._at
        self._at = 0

    def _more(self) -> bool:
        # Doubling keeps the work linear when one value fills the buffer again and again.
        chunk = self._stream.read(max(_CHUNK, len(self._data)))
        self._data += chunk
        return bool(chunk)


def values(
    stream: BinaryIO, *, in_array: bool, accept: Callable[[Any], bool]
) -> Iterator[Value | Broken]:
    """Yield the elements of a top-level array, or the values that follow one another in a stream.

    Args:
        stream: UTF-8 bytes.
        in_array: the stream holds one array; otherwise values one after the other.
        accept: says whether a value is one of those looked for; asked while searching on after a
            broken one.
    """
    scanner = Scanner(stream)
    if in_array:
        scanner.expect(b"[")
    yield from elements(scanner, accept, closes=b"]" if in_array else b"")


def elements(
    scanner: Scanner, accept: Callable[[Any], bool], *, closes: bytes
) -> Iterator[Value | Broken]:
    """Yield what follows in an array that was entered, up to and over ``closes``."""
    sign = re.compile(rb"\}\s*,?\s*(?=\{)")

    def checked(raw: bytes) -> bool:
        return _accepts(raw, accept)

    number = 0
    while True:
        while scanner.passes(b","):
            pass
        if not scanner.peek() or scanner.peek() == closes:
            break
        raw, reason = b"", ""
        try:
            raw = scanner.value()
            data, damaged = parse(raw)
        except Malformed as error:
            reason = str(error)
        except (ValueError, RecursionError) as error:
            reason = f"no valid JSON ({_why(error)})"
        if not reason:
            first = _FIRST_KEY.match(raw)
            if first and accept(data):
                sign = re.compile(rb"\}\s*,?\s*(?=\{\s*" + re.escape(first[1]) + rb"\s*:)")
            yield Value(number, data, damaged)
        else:
            yield Broken(f"/{number}", reason, excerpt(raw or scanner.ahead()))
            if not (raw and scanner.goes_on(closes, checked)) and not scanner.find_next(
                sign, checked
            ):
                return
        number += 1
    if closes and not scanner.passes(closes):
        yield Broken(f"/{number}", f"the file ends before its {closes.decode()}")


def lines(stream: BinaryIO) -> Iterator[Value | Broken]:
    """Yield the value of each line; blank lines count but give none."""
    number = -1
    while line := stream.readline(LIMIT):
        number += 1
        if not line.strip():
            continue
        try:
            data, damaged = parse(line)
        except (ValueError, RecursionError) as error:
            place = f"line {number + 1}"
            yield Broken(f"/{number}", f"{place} is no valid JSON ({_why(error)})", excerpt(line))
            continue
        yield Value(number, data, damaged)


def parse(raw: bytes) -> tuple[Any, bool]:
    """Return a value, and whether bytes of it were no UTF-8 and became U+FFFD.

    Raises:
        ValueError: no JSON.
        RecursionError: nested too deep.
    """
    try:
        return json.loads(raw.decode("utf-8")), False
    except UnicodeDecodeError:
        return json.loads(raw.decode("utf-8", errors="replace")), True


def excerpt(raw: bytes, limit: int = 300) -> str:
    """Return how some bytes begin, as text."""
    return raw[:limit].decode("utf-8", errors="replace")


def _accepts(raw: bytes, accept: Callable[[Any], bool]) -> bool:
    try:
        return accept(parse(raw)[0])
    except (ValueError, RecursionError):
        return False


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    return str(error).split("\n")[0]


def _end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    found = pattern.match(data, at)
    return found.end() if found else at


def _show(byte: bytes) -> str:
    return repr(byte.decode("latin-1")) if byte else "the end"
