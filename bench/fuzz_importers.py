"""Feed the importers with N broken inputs; none may raise, and every message must be accounted for.

    python -m bench.fuzz_importers --inputs 100000 --seed 1

An input is random bytes, or a valid document of some kind with bytes changed, cut, doubled or
replaced by pieces of another. Each goes the whole way of one file: recognised, read, mended, made
into rows, in memory. Prints one JSON document with the counts by what the input was taken for; the
first input that raises is written beside the script's working folder and named.
"""

import argparse
import hashlib
import io
import json
import random
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

from tests.corpus.documents import documents

from loratelier.corpus import importers
from loratelier.corpus.convert import to_row, to_text_rows
from loratelier.corpus.importers.blobs import Blob
from loratelier.corpus.importers.parts import Broken, Document, Thread, Unread, Written
from loratelier.corpus.lineage import COUNTED, check_conserved
from loratelier.corpus.mend import mend_document, mend_thread

PIECES = (
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\u", b"\\ud83d", b"null", b"\x00"),
    *(b"1e999", b"-", b'"mapping"', b'"messages"', b"\xff\xfe", b"\xef\xbb\xbf", b"PK\x03\x04"),
    *(b"%PDF-", b"PAR1", b"<html>", b"</p>", b"<![", b">[!nexus_user]", b"---\n", b"\r", b"\n\n"),
    *("ё".encode(), "🙂".encode(), b"\xd0", b"endobj", b"stream", b"<!--", b"&#x110000;"),
)


def mutate(dice, data, others):
    """Return a document with a few faults."""
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        at = dice.randrange(len(data) + 1)
        to = min(len(data), at + dice.choice((1, 2, 8, 64, 512)))
        how = dice.randrange(7)
        if how == 0:
            data = data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
        elif how == 1:
            data = data[:at] + data[to:]
        elif how == 2:
            data = data[:at] + dice.choice(PIECES) + data[at:]
        elif how == 3:
            data = data[:at] + data[at:to] * 2 + data[to:]
        elif how == 4:
            data = data[:at]
        elif how == 5:
            other = dice.choice(others)
            start = dice.randrange(len(other) + 1)
            data = data[:at] + other[start : start + dice.choice((8, 64, 512))] + data[to:]
        else:
            data = data[:at] + data[at:to][::-1] + data[to:]
    return data


def made(dice, known):
    """Return one input."""
    if dice.random() < 0.1:
        start = dice.choice((b"", *PIECES, b"[{", b'{"a":1}\n'))
        return start + dice.randbytes(dice.choice((0, 1, 4, 32, 300)))
    return mutate(dice, dice.choice(known), known)


def feed(data):
    """Take one input the whole way of a file; return what it was taken for."""
    kinds = fed(data, importers.Settings())
    if kinds["Telegram export"]:
        fed(data, importers.Settings(speaker="Anna"))
        fed(data, importers.Settings(owner_speaks=True))
    return kinds


def fed(data, settings):
    """Read one input with some settings; return what it was taken for."""
    blob = Blob("input", len(data), lambda: io.BytesIO(data), lambda: data)
    return Counter(
        taken(file.name, part) for file in importers.read(blob, settings) for part in file.parts
    )


def taken(name, part):
    """Mend a part and make its rows; return its kind."""
    if isinstance(part, Thread):
        ready = mend_thread(name, part, None)
    elif isinstance(part, Document):
        ready = mend_document(name, part, None)
    else:
        others = {Broken: "broken item", Unread: "unread file", Written: "written"}
        return others[type(part)]
    one = ready.conversation
    if one is not None:
        rows, left = [], []
        if one.is_text:
            rows, left = to_text_rows(one, include_lossy=True)
        else:
            for learn in ("assistant", "user"):
                row, left = to_row(one, learn, include_lossy=learn == "user")
                rows = [row] if row else []
        beside = [each for each in ready.beside if each.kind in COUNTED]
        given = [turn.origin for turn in one.messages] + [each.origin for each in beside]
        check_conserved(given, rows, [*left, *beside])
        places = Counter(origin.place for origin in given)
        assert max(places.values()) == 1, f"two messages in one place: {places.most_common(1)}"
    json.dumps([each.text for each in ready.beside]).encode()
    return part.kind


def main():
    """Feed the inputs and print the counts."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--inputs", type=int, default=100_000)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    warnings.simplefilter("ignore")
    dice = random.Random(chosen.seed)
    known = list(documents().values())
    counts, slowest, digest = Counter(), (0.0, ""), hashlib.sha256()
    begun = time.perf_counter()
    for number in range(chosen.inputs):
        data = made(dice, known)
        digest.update(data)
        start = time.process_time()
        try:
            counts.update(feed(data))
        except BaseException:
            failed = Path(f"fuzz-{chosen.seed}-{number}.bin")
            failed.write_bytes(data)
            print(f"Input {number} of seed {chosen.seed} failed: {failed}", file=sys.stderr)
            raise
        took = time.process_time() - start
        if took > slowest[0]:
            slowest = took, f"input {number}"
    print(
        json.dumps(
            {
                "inputs": chosen.inputs,
                "seed": chosen.seed,
                "sha256": digest.hexdigest()[:16],
                "raised": 0,
                "seconds": round(time.perf_counter() - begun, 1),
                "slowest_processor_seconds": round(slowest[0], 2),
                "slowest": slowest[1],
                "parts": dict(counts.most_common()),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
