"""``loratelier inspect --prompts`` and ``--corpus``: what an adapter changes over many texts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from loratelier.cli.console import out, print_json
from loratelier.kit.errors import InputError

if TYPE_CHECKING:
    from loratelier.adapter import Adapter
    from loratelier.base import Base
    from loratelier.scope.prompt import Messages
    from loratelier.scope.survey import Survey

_TEXTS = 10


def survey_many(
    base: "Base",
    adapter: "Adapter",
    *,
    before: "Adapter | None",
    prompts: Path | None,
    corpus: Path | None,
    split: str | None,
    strength: float,
    top: int,
    raw: bool,
    system: str | None,
    as_json: bool,
) -> None:
    """Read what is given and print the survey."""
    from loratelier.corpus import Corpus
    from loratelier.scope import survey

    texts: list[str | Messages] | Corpus
    if corpus is not None:
        texts = Corpus.load(corpus)
    else:
        assert prompts is not None
        if split is not None:
            raise InputError("--split is for a corpus", "Leave it out")
        texts = read_prompts(prompts)
    seen = survey(
        base,
        adapter,
        texts,
        before=before,
        strength=strength,
        top=top,
        raw=raw,
        system=system,
        split=split,
    )
    if as_json:
        print_json(seen.to_json())
    else:
        _print(seen)


def read_prompts(path: Path) -> "list[str | Messages]":
    """Read prompts from a file: one a line, or JSONL with ``messages``.

    Raises:
        InputError: a file that cannot be read, or a line that is no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    found: list[str | Messages] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found.append(_messages(path, number, line) if path.suffix == ".jsonl" else line)
    return found


def _messages(path: Path, number: int, line: str) -> "Messages":
    try:
        messages = json.loads(line)["messages"]
        return [{"role": str(m["role"]), "content": str(m["content"])} for m in messages]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}, line {number}, is no row with messages",
            'Write {"messages": [{"role": "user", "content": "..."}]}',
        ) from error


def _print(seen: "Survey") -> None:
    from rich.table import Table
    from rich.text import Text

    from loratelier.scope.inspection import NO_EFFECT
    from loratelier.scope.pieces import visible
    from loratelier.scope.wording import nats, quoted

    if not seen.effect:
        out.print(f"{NO_EFFECT}, or both are the same.", markup=False)
        return
    out.print(
        f"Over {len(seen.texts)} texts ({seen.tokens:,} places) the expectations of the next token "
        f"move by {nats(seen.kl)} nats on average, KL(before || after)",
        style="bold",
        markup=False,
    )
    if seen.nll_before is not None and seen.nll_after is not None:
        out.print(f"The answers' loss: {seen.nll_before:.3f} -> {seen.nll_after:.3f} nats a token")
    for name, totals in (("Gained", seen.rose), ("Lost", seen.fell)):
        told = ", ".join(f"{quoted(total.token)} {total.change:+.2f}" for total in totals)
        out.print(f"{name} probability in all: {told}", markup=False)
    table = Table(title="Where it changes most", expand=True)
    for name in ("Text", "KL", "Most after", "Begins"):
        table.add_column(name, justify="right" if name == "KL" else "left")
    for text in seen.texts[:_TEXTS]:
        most = f"{visible(text.largest.token)} ({nats(text.largest.kl)})"
        table.add_row(Text(text.name), nats(text.kl), Text(most), Text(text.excerpt))
    out.print(table)
