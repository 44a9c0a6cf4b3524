"""Training rows made of structures: what was asked, and the movement that answers."""

from loratelier.corpus.lineage import Row
from loratelier.corpus.located import Place
from loratelier.corpus.scenes.model import Language
from loratelier.corpus.structures.marks import recognise
from loratelier.corpus.structures.model import Structure


def check_rows(structure: Structure) -> None:
    """Hold that every row shows its structure, and that no two are the same.

    Raises:
        ValueError: the row and the step or ground that it lacks are named.
    """
    seen: dict[str, str] = {}
    for language, number, row in structure.numbered():
        where = f"row {number} in '{language}' (“{row.prompt[:40]}”)"
        reply = structure.reply(language, row)
        found = recognise(structure, reply, language)
        if found.missing:
            raise ValueError(f"{where} shows no sign of {', '.join(found.missing)}")
        if found.refused:
            first = found.refused[0]
            raise ValueError(
                f"{where} stands on '{first.part}' (“{first.words}”), which is refused"
            )
        if reply in seen:
            raise ValueError(f"{where} says the same as {seen[reply]}")
        seen[reply] = where


def structure_rows(structure: Structure, place: Place) -> list[tuple[Language, Row]]:
    """Make a row of each written one, with its language; each is a conversation of its own."""
    rows = []
    for language, number, row in structure.numbered():
        at = ("rows", language, number - 1)
        reply = structure.reply(language, row)
        step = "" if row.fill is None else "a template filled"
        turns = (
            place.turn("user", row.prompt, *at, "prompt"),
            place.turn("assistant", reply, *at, "fill" if row.fill else "reply", step=step),
        )
        conversation = f"{structure.id}-{language}-{number}"
        made = Row(f"{conversation}#0", conversation, ("user", "assistant"), turns)
        rows.append((language, made))
    return rows
