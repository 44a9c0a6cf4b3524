"""report.html: one page that shows what came in, what did not, and what was mended."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from loratelier.corpus.hygiene.note import CleaningNote
from loratelier.corpus.notes import ScoreNote
from loratelier.corpus.report import Mended, NoteReport, Report, count, first_words

# A page with every drop of ten thousand notes would not open; the rest stands in the parquet file.
SHOWN = 1000

_STYLE = """
:root { color-scheme: light dark; --line: #d5d3cc; --faint: #6b6860; --ground: #fdfcf9;
  --ink: #22211e; --soft: #f3f1ea; --was: #a33a2a; --now: #1f6f43; }
@media (prefers-color-scheme: dark) { :root { --line: #3a3934; --faint: #a09c91;
  --ground: #191815; --ink: #e8e5dc; --soft: #24231f; --was: #f08a78; --now: #7fd0a0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 2rem 1.25rem 4rem; background: var(--ground);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p { margin: .4rem 0; } .faint { color: var(--faint); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .75rem;
  margin: 1.5rem 0; }
dl div { background: var(--soft); border-radius: .5rem; padding: .6rem .8rem; }
dt { color: var(--faint); font-size: .85rem; } dd { margin: 0; font-size: 1.5rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .7rem .4rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; min-width: 4.5em; }
th { color: var(--faint); font-weight: 500; } td.n, th.n { text-align: right; white-space: nowrap; }
figure { margin: 1rem 0; padding: .8rem 1rem; background: var(--soft); border-radius: .5rem; }
figcaption { color: var(--faint); font-size: .9rem; margin-bottom: .4rem; }
pre { margin: .2rem 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .88rem/1.5 ui-monospace, monospace; }
.was { color: var(--was); } .now { color: var(--now); }
"""


def page(report: Report, dropped: Sequence[Mapping[str, Any]], total: int) -> str:
    """Return the page as HTML that needs nothing else; every text in it is escaped.

    Args:
        report: the manifest.
        dropped: the first of the records of ``dropped.parquet`` that are no commentary.
        total: how many of them there are.
    """
    body = (
        _head(report),
        _scores(report),
        _selections(report),
        _syntheses(report),
        _cleaning(report.cleaning),
        _files(report.files),
        _repairs(report),
        _same(report),
        _broken(report.files),
        _drops(dropped, total),
        _commentary(report.files),
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Corpus report</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _head(report: Report) -> str:
    learned = "the assistant's" if report.learn == "assistant" else "the person's"
    cells = "".join(
        f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{number}</dd></div>"
        for name, number in report.counts().items()
    )
    return (
        "<h1>Corpus report</h1>\n"
        f'<p class="faint">Format {escape(report.format)}, learning {learned} voice, '
        f"{report.holdout:.0%} of conversations held out. Hash {escape(report.hash[:16])}.</p>\n"
        f"<dl>{cells}</dl>\n"
        f"<p>Every message is {_where(report)}: "
        f"{report.messages} = {report.messages_in_rows} + {report.dropped}.</p>" + _beside(report)
    )


def _where(report: Report) -> str:
    if report.syntheses:
        return "what rows were written from, or among the dropped"
    return "in a row or among the dropped, once"


def _beside(report: Report) -> str:
    said = []
    if report.passages:
        said.append(f"{count(report.passages, 'passage')} of texts, likewise.")
    if report.candidates:
        said.append(
            f"{count(report.candidates, 'turn')} with other versions stand in candidates.parquet: "
            "candidates for preferences, not labelled ones."
        )
    return "".join(f"\n<p>{line}</p>" for line in said)


def _cleaning(note: CleaningNote) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in note.lines())
    found = ((each.kind, each.file, each.uid, each.row, each.hint) for each in note.found)
    repeated = ((each.line, each.conversations) for each in note.boilerplate)
    parts = [f"<h2>Cleaning</h2>\n<ul>{items}</ul>" if items else ""]
    if note.found:
        parts.append(_table(("found", "file", "message", "row", "begins"), found))
    if note.boilerplate:
        parts.append(_table(("line that repeats", "conversations"), repeated))
    return "\n".join(part for part in parts if part)


def _scores(report: Report) -> str:
    if not report.scores:
        return ""
    heads = ("score", "what", "by", "rows", "not scored", "lowest", "¼", "median", "¾", "highest")
    return "<h2>Scores</h2>\n" + _table(heads, map(_score, report.scores))


def _score(note: ScoreNote) -> tuple[str | int, ...]:
    figures = (note.lowest, note.quarter, note.median, note.three_quarters, note.highest)
    by = note.base.name if note.base else "no base"
    return (note.column, note.metric, by, note.scored, note.unscored, *map(_number, figures))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _selections(report: Report) -> str:
    if not report.selections:
        return ""
    rows = (
        (note.candidates, note.selected, note.replayed, cause, number)
        for note in report.selections
        for cause, number in note.reasons.items()
    )
    heads = ("training rows", "chosen", "replayed", "left out because", "rows")
    return "<h2>Selection</h2>\n" + _table(heads, rows)


def _syntheses(report: Report) -> str:
    if not report.syntheses:
        return ""
    heads = ("task", "version", "model", "requests", "rows", "failed", "tokens in", "out", "price")
    rows = (
        (
            note.task,
            note.version,
            note.model,
            note.requests,
            note.rows,
            note.failed,
            note.prompt_tokens,
            note.answer_tokens,
            _number(note.price),
        )
        for note in report.syntheses
    )
    reasons = [
        (note.task, why, number)
        for note in report.syntheses
        for why, number in note.reasons.items()
    ]
    failed = _table(("task", "gave nothing usable because", "requests"), reasons) if reasons else ""
    return "<h2>Synthesis</h2>\n" + _table(heads, rows) + failed


def _files(files: Sequence[NoteReport]) -> str:
    rows = (
        (
            note.file,
            note.kind or note.state,
            note.encoding,
            note.messages,
            note.in_rows,
            note.dropped,
            note.repaired,
            note.lossy,
            len(note.commentary),
        )
        for note in files
    )
    heads = (
        "file",
        "kind",
        "encoding",
        "messages",
        "in rows",
        "dropped",
        "mended",
        "lossy",
        "commentary",
    )
    return "<h2>Files</h2>\n" + _table(heads, rows)


def _repairs(report: Report) -> str:
    figures = "\n".join(_figure(step) for note in report.files for step in note.repairs[:20])
    if not figures:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in report.repair_lines())
    return f"<h2>Mended encodings</h2>\n<ul>{lines}</ul>\n{figures}"


def _figure(step: Mended) -> str:
    lost = f"{count(step.lost, 'character')} lost" if step.lost else "nothing lost"
    return (
        f"<figure><figcaption>{escape(step.file)}: {escape(step.what)}, "
        f"{count(step.lines, 'line')}, {lost}; score {step.score_before} → {step.score_after} nats "
        f'a character</figcaption><pre class="was">{escape(step.excerpt_before)}</pre>'
        f'<pre class="now">{escape(step.excerpt_after)}</pre></figure>'
    )


def _same(report: Report) -> str:
    if not report.same:
        return ""
    rows = ((pair.kept, ", ".join(pair.left)) for pair in report.same)
    return "<h2>The same conversation</h2>\n" + _table(("kept", "left out"), rows)


def _broken(files: Sequence[NoteReport]) -> str:
    rows = [(note.file, each.item, each.reason) for note in files for each in note.broken]
    if not rows:
        return ""
    total = sum(note.broken_items for note in files)
    heads = ("file", "item", "why")
    return "<h2>Broken items</h2>\n" + _table(heads, rows[:SHOWN]) + _rest(total)


def _drops(dropped: Sequence[Mapping[str, Any]], total: int) -> str:
    if not dropped:
        return ""
    rows = (
        (
            each["lineage"][0]["file"],
            each["lineage"][0]["role"] or each["kind"],
            each["reason"],
            first_words(each["text"], 160),
        )
        for each in dropped
    )
    return "<h2>Dropped</h2>\n" + _table(("file", "what", "reason", "begins"), rows) + _rest(total)


def _commentary(files: Sequence[NoteReport]) -> str:
    found = [(note.file, each) for note in files for each in note.commentary]
    if not found:
        return ""
    rows = (
        (file, f"{each.start}–{each.end}", each.characters, each.first_words)
        for file, each in found[:SHOWN]
    )
    return (
        "<h2>Commentary between messages</h2>\n"
        + _table(("file", "span", "characters", "begins"), rows)
        + _rest(len(found))
    )


def _rest(total: int) -> str:
    if total <= SHOWN:
        return ""
    return f'<p class="faint">{total - SHOWN} more stand in dropped.parquet.</p>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}</table></div>'


def _cell(value: str | int) -> str:
    kind = ' class="n"' if isinstance(value, int) else ""
    return f"<td{kind}>{escape(str(value))}</td>"
