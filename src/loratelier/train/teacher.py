"""A teacher: an adapter on the same base, or another base, asked once what it expects."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from loratelier.adapter import store
from loratelier.bank import AdapterBank
from loratelier.base import Base, load_base
from loratelier.base.decoder import Reader
from loratelier.base.packed import rows_apart
from loratelier.corpus import Corpus
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark, task
from loratelier.train.examples import Example
from loratelier.train.packing import by_length, pack
from loratelier.train.recipe import Recipe
from loratelier.train.rows import examples
from loratelier.train.shares import Given, Shares, digest_of, write_shares

_TOP = 32
_AT_ONCE = 1024  # tokens


def teach(recipe: Recipe, path: str | Path, *, base: Base | None = None) -> Path:
    """Write what the recipe's teacher expects at every learned place of its corpus.

    The file takes the teacher's place in the recipe (``distill.file``), so that the teacher may be
    asked on another machine than the one that trains.

    Args:
        recipe: of objective distill, with a teacher.
        path: the parquet file to write.
        base: the recipe's base, when it is loaded already.

    Raises:
        InputError: the recipe has no teacher; see :func:`ask`.
    """
    if recipe.distill is None or recipe.distill.teacher is None:
        raise InputError("The recipe has no teacher to ask", "Give it distill.teacher")
    base = base or load_base(recipe.base)
    rows = examples(base, Corpus.load(recipe.corpus), recipe)
    given, _ = ask(base, recipe.distill.teacher, rows, recipe.distill.top)
    write_shares(given, Path(path), base.tokenizer)
    return Path(path)


@torch.no_grad()
def ask(base: Base, teacher: str, rows: Sequence[Example], top: int | None) -> tuple[Given, str]:
    """Return the teacher's likeliest next tokens at every learned place, and its digest.

    Args:
        base: the base that is trained, wearing nothing.
        teacher: an adapter's name in the store, or another base.
        rows: tokenized by the base.
        top: how many tokens a place.

    Raises:
        InputError: the adapter does not fit the base, or the other base has another tokenizer.
    """
    vocabulary = base.model.config.get_text_config().vocab_size
    given = {}
    with _worn(base, teacher) as (model, digest), rows_apart(model) as apart:
        reader = Reader(model, apart)
        packs = pack(by_length(rows), _AT_ONCE, padded=apart == "padding")
        learned = {row.row: [n for n, flag in enumerate(row.learned) if flag] for row in rows}
        with task("Asking the teacher", total=len(packs)) as bar:
            for each in packs:
                there = each.to(next(model.parameters()).device)
                seen = reader.seen(there.ids, there.lengths, there.places)
                ids, shares = (x.cpu() for x in reader.likeliest(seen, top or _TOP, vocabulary))
                for number, row in enumerate(each.rows):
                    own = each.owners == number
                    parts = zip(ids[own], shares[own], strict=True)
                    given[row] = Shares(dict(zip(learned[row], parts, strict=True)))
                bar.advance()
    return given, digest


@contextmanager
def _worn(base: Base, teacher: str) -> Iterator[tuple[Any, str]]:
    """Yield the teacher as a model, and a digest of it."""
    if teacher in store.names():
        remark(f"The teacher is the adapter '{teacher}'")
        adapter = store.open(teacher)
        with AdapterBank(base.model) as bank:
            bank.add(teacher, adapter)
            with bank.activate(teacher):
                yield base.model, adapter.digest
        return
    try:
        other = load_base(teacher, dtype=base.dtype, device=base.device)
    except InputError as error:
        raise InputError(
            f"The teacher '{teacher}' is no adapter of the store; as a base: {error.what}",
            error.mend,
        ) from error
    if digest_of(other.tokenizer) != digest_of(base.tokenizer):
        raise InputError(
            f"The teacher {other.name} has another tokenizer than {base.name}",
            "Choose a teacher of the same family",
        )
    remark(f"The teacher is the base {other.name}")
    yield other.model, other.fingerprint
