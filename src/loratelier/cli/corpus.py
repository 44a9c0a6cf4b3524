"""``loratelier corpus``: build a corpus from sources, read its rows, see its repairs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loratelier.cli import corpus_scores, corpus_synthesize
from loratelier.cli.console import Json, out, print_json

if TYPE_CHECKING:
    from loratelier.corpus import Corpus, Report

app = typer.Typer(
    name="corpus",
    help="From a person's texts to training rows: build, show, diff, score, select, synthesize.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
corpus_scores.register(app)
corpus_synthesize.register(app)

Folder = Annotated[Path, typer.Argument(help="A corpus folder.", show_default=False)]


@app.command()
def build(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="Files or folders: notes, exports (ChatGPT, Claude, Telegram), data sets, texts, "
            "scenes and structures of thought (YAML).",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The corpus folder to write.")],
    format: Annotated[
        str,
        typer.Option(
            help="The shape of a row: chat, instruction or qa (messages; the assistant's are "
            "learned), raw, markdown, json, yaml or scene (a text; all of it is learned)."
        ),
    ] = "chat",
    learn: Annotated[
        str, typer.Option(help="Whose voice is learned: 'assistant', or 'user' for the person's.")
    ] = "assistant",
    speaker: Annotated[
        str | None,
        typer.Option(help="In chats between people: the name of the one whose turns are learned."),
    ] = None,
    holdout: Annotated[
        float, typer.Option(help="The share of conversations kept for measuring.")
    ] = 0.1,
    include_lossy: Annotated[
        bool, typer.Option("--include-lossy", help="Keep messages that lost characters.")
    ] = False,
    script: Annotated[
        str | None, typer.Option(help="Keep only conversations in this script: Latn or Cyrl.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="The notes' language when it is known: ru or en.")
    ] = None,
    mask: Annotated[
        str, typer.Option(help="Put placeholders for: pii, secrets, or both (pii,secrets).")
    ] = "",
    decontaminate: Annotated[
        list[Path] | None,
        typer.Option(help="A file of evaluation items; rows that share 13 words with one go."),
    ] = None,
    near_duplicates: Annotated[
        float | None,
        typer.Option(help="Leave out rows at least this similar to an earlier one, as 0.8."),
    ] = None,
    strip_boilerplate: Annotated[
        bool, typer.Option("--strip-boilerplate", help="Take out lines that many answers share.")
    ] = False,
    include_code: Annotated[
        bool,
        typer.Option("--include-code", help="Keep code of ChatGPT notes, which Nexus damages."),
    ] = False,
    engine: Annotated[
        str, typer.Option(help="Where the work is done: local, or ray (Ray Data; the same rows).")
    ] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="A Ray cluster that runs; else a local one is begun.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Rebuild a corpus that exists in the folder.")
    ] = False,
    json: Json = False,
) -> None:
    """Read sources, mend broken encodings, and write training rows with their lineage."""
    from loratelier.corpus import build_corpus
    from loratelier.corpus.folder import check_target
    from loratelier.corpus.hygiene import Hygiene

    check_target(output, replace=force)
    corpus = build_corpus(
        sources,
        format=format,
        learn=learn,
        speaker=speaker,
        holdout=holdout,
        include_lossy=include_lossy,
        script=script,
        language=language,
        hygiene=Hygiene(
            mask=frozenset(kind.strip() for kind in mask.split(",") if kind.strip()),
            decontaminate=tuple(decontaminate or ()),
            near_duplicates=near_duplicates,
            strip_boilerplate=strip_boilerplate,
            include_code=include_code,
        ),
        engine=engine,
        ray_address=ray_address,
    )
    corpus.save(output, replace=force)
    if json:
        print_json(_document(corpus, output))
    else:
        _print_build(corpus.report, output)


@app.command()
def show(
    folder: Folder,
    row: Annotated[str | None, typer.Option(help="One row: its id, or its number from 1.")] = None,
    json: Json = False,
) -> None:
    """Print the rows, and where each message came from."""
    from loratelier.corpus import Corpus

    rows = _rows(Corpus.load(folder), row)
    if json:
        print_json(rows)
        return
    for each in rows:
        _print_row(each)


@app.command()
def diff(folder: Folder, json: Json = False) -> None:
    """Print every line that was mended, before and after, step by step."""
    from loratelier.corpus import Corpus

    mended = Corpus.load(folder).mended()
    if json:
        print_json([{**step.model_dump(mode="json"), "changes": lines} for step, lines in mended])
        return
    none = True
    for step, lines in mended:
        none = False
        place = f"{step.file}, {step.role or 'beside messages'} {step.uid}".rstrip()
        _line(f"{place}: {step.what}, {step.lines} lines, {step.lost} characters lost", "bold")
        for line in lines:
            _line(f"- {line['was']}", "red")
            _line(f"+ {line['now']}", "green")
        out.print()
    if none:
        out.print("Nothing was mended in this corpus.")


def _line(text: str, style: str | None = None) -> None:
    out.print(text, style=style, markup=False, emoji=False, soft_wrap=True)


def _document(corpus: "Corpus", folder: Path) -> dict[str, Any]:
    report = corpus.report
    return {
        **report.counts(),
        "hash": corpus.hash,
        "path": str(folder),
        "report": str(folder / "report.html"),
        "reasons": report.reasons,
        "cleaning": report.cleaning.model_dump(mode="json"),
        "same": [same.model_dump(mode="json") for same in report.same],
        "files": [note.model_dump(mode="json") for note in report.files],
    }


def _print_build(report: "Report", folder: Path) -> None:
    from rich.table import Table

    from loratelier.corpus.report import broken_line

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right", style="bold")
    table.add_column()
    for name, number in report.counts().items():
        table.add_row(str(number), name.replace("_", " "))
    out.print(table)
    _section("Mended", report.repair_lines())
    _section(
        "The same conversation", (f"{s.kept} kept, not {', '.join(s.left)}" for s in report.same)
    )
    _section("Messages dropped", (f"{number}: {cause}" for cause, number in report.reasons.items()))
    _section("Cleaning", report.cleaning.lines())
    _section("Broken items", (broken_line(i, n.file) for n in report.files for i in n.broken))
    _section("Commentary between messages, in no row", _commentary(report))
    _section("Files without messages", (f"{n.file}: {n.state}" for n in report.silent_notes()))
    out.print()
    _line(f"Corpus: {folder}")
    _line(f"Report: {folder / 'report.html'}")


def _commentary(report: "Report") -> list[str]:
    return [
        f"{note.file}: {sum(each.characters for each in note.commentary)} characters, "
        f"“{note.commentary[0].first_words}”"
        for note in report.files
        if note.commentary
    ]


# A vault of thousands of notes would push the counts off the screen.
_LINES = 12


def _section(title: str, lines: Any) -> None:
    found = list(lines)
    if not found:
        return
    out.print()
    _line(title, "bold")
    for line in found[:_LINES]:
        _line(f"  {line}")
    if len(found) > _LINES:
        _line(f"  and {len(found) - _LINES} more, in report.html")


def _rows(corpus: "Corpus", wanted: str | None) -> list[dict[str, Any]]:
    from loratelier.kit.errors import InputError, did_you_mean

    rows: list[dict[str, Any]] = corpus.rows.to_pylist()
    if wanted is None:
        return rows
    by_id = [row for row in rows if wanted in (row["id"], row["conversation"])]
    if by_id:
        return by_id
    if wanted.isdecimal() and 1 <= int(wanted) <= len(rows):
        return [rows[int(wanted) - 1]]
    raise InputError(
        f"No row '{wanted}' among {len(rows)}", did_you_mean(wanted, [row["id"] for row in rows])
    )


def _print_row(row: dict[str, Any]) -> None:
    lossy = ", lossy" if row["lossy"] else ""
    _line(f"{row['id']}  ({row['format']}, {row['split']}{lossy})", "bold")
    if row["messages"] is None:
        for origin in row["lineage"]:
            _print_origin(origin["role"], origin)
        _line(row["text"])
        out.print()
        return
    for number, message in enumerate(row["messages"]):
        for origin in row["lineage"]:
            if origin["message"] == number:
                _print_origin(message["role"], origin)
        _line(message["content"])
        out.print()


def _print_origin(role: str, origin: dict[str, Any]) -> None:
    span = "" if origin["start"] is None else f"{origin['start']}-{origin['end']}"
    place = " ".join(part for part in (origin["file"], origin["item"], span) if part)
    _line(f"{role}  {place}  {origin['uid']}".rstrip(), "cyan")
    for step in origin["steps"]:
        _line(f"  {step}", "yellow")
