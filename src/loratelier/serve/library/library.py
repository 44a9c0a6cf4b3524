"""A library: pieces of notes in LanceDB, found by their words and, if there is one, by their sense.

Words are compared by their dictionary forms in Russian and by their stems in English, so that a
question in any case of a noun finds its note; they are scored by BM25. Where the library was built
with an embedding model, its nearest pieces are found too, and the two lists are joined by
reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009).
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from loratelier.corpus import Corpus
from loratelier.kit.errors import InputError, did_you_mean
from loratelier.kit.files import atomic_folder
from loratelier.kit.home import room
from loratelier.kit.progress import task
from loratelier.route.words import terms
from loratelier.serve.library.embed import Embedder
from loratelier.serve.library.pieces import Piece, pieces_of

_TABLE, _FACTS = "pieces", "library.json"
# How much the first places of a list count above the next (Cormack et al. use 60).
_FUSION = 60
_NAME = re.compile(r"[\w][\w.-]{0,63}")
# Words that every text has: a question of them alone is looked up by them all the same.
_FUNCTION = """
a an and are as at be but by can did do doe for from had has have how i in is it me my not of on or
our say so tell that the their there they this to was we were what when where which who whi will
with would you your
а бы быть в весь во вот вы где да для до его ее если же за и из или их к как какой когда кто ли мой
мы на наш не ни но о об он она они от по под почему при про с свой себя сказать со так такой там то
тот ты у что чтобы это этот я
"""
_EMPTY = frozenset(_FUNCTION.split())
# Pieces that are written at once.
_AT_ONCE = 512


@dataclass(frozen=True)
class Found:
    """A piece that was found, the best first; ``score`` orders one search and says no more."""

    piece: Piece
    score: float

    def to_json(self) -> dict[str, Any]:
        """Return ``{text file uid item start end role score}``."""
        return {**asdict(self.piece), "score": self.score}


class Library:
    """A library that was built; see :func:`build_library`.

    Args:
        path: its folder.
        name: what it is called.

    Raises:
        InputError: LanceDB is not installed, or the folder is no library.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        try:
            self.facts: dict[str, Any] = json.loads((path / _FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} is no library", "Build one: loratelier library build SOURCE --name NAME"
            ) from error
        self._table: Any = _lancedb().connect(path).open_table(_TABLE)
        self._embed = Embedder(self.facts["embed"]) if self.facts["embed"] else None

    @classmethod
    def open(cls, name: str) -> "Library":
        """Open a library of the home by its name.

        Raises:
            InputError: there is none of that name.
        """
        if not _NAME.fullmatch(name) or not (room("libraries") / name / _FACTS).exists():
            raise InputError(f"There is no library {name!a}", did_you_mean(name, names()))
        return cls(room("libraries") / name, name)

    def search(self, text: str, k: int = 4) -> list[Found]:
        """Return the ``k`` pieces that say most of what is asked; fewer where fewer do.

        Raises:
            InputError: ``k`` is less than 1.
        """
        if k < 1:
            raise InputError(f"k is {k}", "Ask for one piece or more")
        deep = max(20, 4 * k)
        lists = [self._by_words(text, deep)]
        if self._embed is not None:
            near = self._table.search(self._embed([text])[0], vector_column_name="vector")
            lists.append(near.metric("cosine").limit(deep).to_list())
        scores: dict[int, float] = {}
        rows: dict[int, dict[str, Any]] = {}
        for each in lists:
            for place, row in enumerate(each):
                rows[row["id"]] = row
                scores[row["id"]] = scores.get(row["id"], 0.0) + 1 / (_FUSION + place + 1)
        best = sorted(scores, key=lambda number: (-scores[number], number))[:k]
        return [Found(_piece(rows[number]), scores[number]) for number in best]

    def _by_words(self, text: str, most: int) -> list[dict[str, Any]]:
        query: Any = import_module("lancedb.query").MatchQuery

        said = list(dict.fromkeys(terms(text)))
        asked = " ".join([each for each in said if each not in _EMPTY] or said)
        if not asked:
            return []
        found: list[dict[str, Any]] = (
            self._table.search(query(asked, "terms"), query_type="fts").limit(most).to_list()
        )
        # Equal scores come in any order; a search that is repeated should not.
        return sorted(found, key=lambda row: (-row["_score"], row["id"]))


def build_library(
    corpora: Sequence[Corpus], name: str, *, embed: str | None = None, replace: bool = False
) -> Library:
    """Put texts into a library of the home.

    Args:
        corpora: what was made of the notes; see :func:`read_notes`.
        name: what it is to be called.
        embed: an embedding model, by folder or name; None for words alone.
        replace: take the place of a library of that name.

    Raises:
        InputError: a name that is none, or is taken; nothing to put in; no such model; LanceDB is
            not installed.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!a} is no name for a library", "Letters, digits, '.', '_' and '-', 64 at most"
        )
    pieces = list(pieces_of(corpora))
    if not pieces:
        raise InputError("There is nothing to look up", "Give notes with text in them")
    vectors = Embedder(embed) if embed else None
    target = room("libraries") / name
    with atomic_folder(target, replace=replace) as folder:
        _fill(_lancedb().connect(folder), pieces, vectors)
        facts = {
            "pieces": len(pieces),
            "files": len({piece.file for piece in pieces}),
            "corpora": [corpus.hash for corpus in corpora],
            "embed": vectors.path if vectors else None,
        }
        (folder / _FACTS).write_text(json.dumps(facts, indent=2), encoding="utf-8")
    return Library(target, name)


def names() -> list[str]:
    """Return the libraries of the home."""
    return sorted(path.parent.name for path in room("libraries").glob(f"*/{_FACTS}"))


def _fill(store: Any, pieces: Sequence[Piece], embed: Embedder | None) -> None:
    from lancedb.index import FTS

    table: Any = None
    with task("Library", total=len(pieces)) as bar:
        for at in range(0, len(pieces), _AT_ONCE):
            part = pieces[at : at + _AT_ONCE]
            rows = list(_rows(part, at, embed))
            if table is None:
                table = store.create_table(_TABLE, _as_arrow(rows))
            else:
                table.add(_as_arrow(rows))
            bar.advance(len(part))
    # The terms are ready: nothing is to be cut, folded or left out of them again.
    plain = FTS(
        base_tokenizer="whitespace",
        lower_case=False,
        stem=False,
        remove_stop_words=False,
        ascii_folding=False,
        with_position=False,
    )
    table.create_index("terms", config=plain)


def _rows(pieces: Iterable[Piece], first: int, embed: Embedder | None) -> Iterable[dict[str, Any]]:
    held = list(pieces)
    vectors = embed([piece.text for piece in held]) if embed is not None else None
    for number, piece in enumerate(held):
        row = {"id": first + number, "terms": " ".join(terms(piece.text)), **asdict(piece)}
        yield row if vectors is None else row | {"vector": vectors[number]}


def _as_arrow(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    fields = [
        ("id", pa.int64()),
        *((name, pa.string()) for name in ("terms", "text", "file", "uid", "item", "role")),
        ("start", pa.int64()),
        ("end", pa.int64()),
    ]
    if "vector" in rows[0]:
        fields.append(("vector", pa.list_(pa.float32(), len(rows[0]["vector"]))))
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _piece(row: dict[str, Any]) -> Piece:
    return Piece(**{name: row[name] for name in Piece.__dataclass_fields__})


def _lancedb() -> Any:
    try:
        import lancedb
    except ImportError as error:
        raise InputError(
            "LanceDB is not installed", "pip install 'loratelier[retrieval]', or lancedb"
        ) from error
    return lancedb
