"""An inspection as one self-contained HTML page: no network, no fonts, no libraries."""

import json
import math
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from loratelier.scope.inspection import DIRECTION, Continuation, Inspection
from loratelier.scope.moves import Move, Position
from loratelier.scope.pictures.book import pictures
from loratelier.scope.pictures.svg import RULES, both
from loratelier.scope.pieces import visible
from loratelier.scope.report_words import BETWEEN, DETAIL, WORDS
from loratelier.scope.wording import ENGLISH, RUSSIAN, nats, percent, sentences

# How much of the text before a position is shown with it, in characters.
_CONTEXT = 60
_TRACKS = ("adapter", "base", "given")


def page(seen: Inspection) -> str:
    """Return the page. Everything that came from a person or a model is escaped."""
    say = _speaker(seen)
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    # Nothing may be loaded, whatever a token says: the policy holds where escaping would fail.
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{escape(seen.adapter)}: {escape(seen.question[:60])}</title>
<style>{style}{RULES}</style>
</head>
<body>
<main>
{_header(seen, say)}
{_answers(seen, say)}
{_inside(seen, say)}
{_where(seen, say) if seen.effect else ""}
{_table(seen, say)}
</main>
<script type="application/json" id="data">{_data(seen)}</script>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return (files("loratelier.scope") / "assets" / name).read_text(encoding="utf-8")


Say = Callable[[str], str]


def _speaker(seen: Inspection) -> Say:
    """Return what says the page's words; between two adapters some of them are others."""
    words = WORDS if seen.before is None else WORDS | BETWEEN

    def say(key: str) -> str:
        english, russian = words[key]
        names = {"before": seen.before, "adapter": seen.adapter}
        # A name may hold braces of its own: it is put in last, and once.
        return both((english.format(**names), russian.format(**names)))

    return say


def _header(seen: Inspection, say: Say) -> str:
    english, russian = sentences(seen, ENGLISH), sentences(seen, RUSSIAN)
    pairs = [both(pair) for pair in zip(english, russian, strict=True)]
    facts = {
        "base": seen.base,
        **({"before": seen.before} if seen.before is not None else {}),
        "adapter": seen.adapter,
        "strength": f"{seen.strength:g}",
        "weights": seen.fingerprint.removeprefix("sha256:")[:16],
    }
    listed = "".join(
        f"<div><dt>{say(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in facts.items()
    )
    rest = "".join(f"<p>{sentence}</p>" for sentence in pairs[1:])
    return f"""<div class="top"><p class="kicker">LoRAtelier · {say("kicker")}</p>
<button id="language" type="button">{both(("Русский", "English"))}</button></div>
<h1>{pairs[0]}</h1>
{rest}
<dl class="facts">{listed}</dl>"""


def _answers(seen: Inspection, say: Say) -> str:
    cards = "".join(_answer(side, seen.continuations[side], say) for side in ("base", "adapter"))
    explained = say("answers_why_parted" if seen.parts_at else "answers_why_same")
    return f"""<section><h2>{say("answers")}</h2>
<div class="question">{escape(seen.question)}</div>
<div class="answers">{cards}</div>
<p class="why">{explained}</p></section>"""


def _answer(side: str, answer: Continuation, say: Say) -> str:
    begin, end = answer.parting or (0, 0)
    text = answer.text
    body = escape(text)
    if answer.parting:
        marked = escape(text[begin:end]) or say("stops")
        body = f"{escape(text[:begin])}<mark>{marked}</mark>{escape(text[end:])}"
    close = "" if answer.ended else f'<p class="note">{say("cut")}</p>'
    return f"""<div class="card {side}"><h3>{say(f"answer_{side}")}</h3>
<div class="answer">{body}</div>{close}</div>"""


def _inside(seen: Inspection, say: Say) -> str:
    drawn = pictures(seen)
    if not drawn:
        return ""
    figures = "\n".join(picture.to_html() for picture in drawn)
    return f"""<section class="pictures"><h2>{say("inside")}</h2>
<p class="why">{say("inside_why")}</p>
{figures}</section>"""


def _where(seen: Inspection, say: Say) -> str:
    names = [name for name in _TRACKS if name in seen.continuations]
    tabs = "".join(
        f'<button type="button" data-track="{name}" aria-pressed="false">{say(f"track_{name}")}'
        "</button>"
        for name in names
    )
    views = "".join(_view(seen, name, say) for name in names)
    return f"""<section><h2>{say("where")}</h2>
<p class="why">{say("kl_why")}</p>
<div class="tracks">{tabs}</div>
<div class="where"><div>{views}
<div class="scale">{_scale(say)}</div>
<p class="why">{say("chips_why")}</p></div>
<div class="card detail" id="detail" aria-live="polite"></div></div>
<p class="why">{say("bars_why")}</p></section>"""


def _scale(say: Say) -> str:
    marks = "".join(
        f'<span class="chip" style="--k:{_heat(kl):.3f}">{kl:g}</span>'
        for kl in (0, 0.1, 0.5, 1, 3)
    )
    return f"KL, {say('nats')} {marks}"


def _heat(kl: float) -> float:
    """Return a shade from 0 to 1 on one scale for all pages, so that pages can be compared."""
    return 1 - math.exp(-kl)


def _track(seen: Inspection, name: str) -> tuple[Position, ...]:
    # The answer's first position is the prompt's last token, now with the token that follows it.
    return (*seen.positions[:-1], *seen.continuations[name].positions)


def _view(seen: Inspection, name: str, say: Say) -> str:
    positions = _track(seen, name)
    asked = len(seen.positions)
    chips = "".join(_chip(n, position, asked) for n, position in enumerate(positions))
    last = visible(seen.continuations[name].tokens[-1])
    return f"""<div data-view="{name}" hidden>{_strip(positions, asked, say)}
<div class="chips" role="group">{chips}
<span class="chip answered unscored">{escape(last)}</span></div></div>"""


def _chip(number: int, position: Position, asked: int) -> str:
    label = escape(visible(position.token))
    style = "chip answered" if position.index >= asked else "chip"
    newline = "<br>" if "\n" in position.token else ""
    return (
        f'<button type="button" class="{style}" data-at="{number}" aria-pressed="false" '
        f'tabindex="-1" style="--k:{_heat(position.kl):.3f}" '
        f'title="KL {nats(position.kl)}">{label}</button>{newline}'
    )


def _strip(positions: Sequence[Position], asked: int, say: Say) -> str:
    most = max(position.kl for position in positions) or 1.0
    bars = "".join(
        f'<rect data-bar="{n}" x="{n + 0.1:.1f}" y="{100 - height:.2f}" width="0.8" '
        f'height="{height:.2f}"/>'
        for n, height in enumerate(92 * position.kl / most for position in positions)
    )
    hits = "".join(
        f'<rect class="hit" data-hit="{n}" x="{n}" y="0" width="1" height="100"/>'
        for n in range(len(positions))
    )
    box = f'viewBox="0 0 {len(positions)} 100" preserveAspectRatio="none"'
    # The chips below say the same to a keyboard and to a screen reader.
    return f"""<svg class="strip" {box} aria-hidden="true">
{bars}<line x1="{asked}" x2="{asked}" y1="0" y2="100"/>{hits}</svg>
<div class="axis"><span>← {say("prompt")}</span>
<span>{say("tallest")} {nats(most)}</span><span>{say("answer")} →</span></div>"""


def _table(seen: Inspection, say: Say) -> str:
    parts = [_rows("prompt", seen.positions, say)]
    parts += [
        _rows(f"track_{name}", seen.continuations[name].positions, say)
        for name in _TRACKS
        if name in seen.continuations
    ]
    heads = "".join(
        f"<th>{say(key)}</th>" for key in ("number", "token", "kl", "rose", "fell", "next")
    )
    return f"""<details><summary>{say("table")}</summary>
<p class="note">{escape(DIRECTION)}</p>
<div class="scroll"><table><thead><tr>{heads}</tr></thead>
<tbody>{"".join(parts)}</tbody></table></div>
</details>"""


def _rows(title: str, positions: Sequence[Position], say: Say) -> str:
    head = f'<tr class="head"><th colspan="6">{say(title)}</th></tr>'
    return head + "".join(_row(position) for position in positions)


def _row(position: Position) -> str:
    cells = [_told(moves) for moves in (position.rose[:1], position.fell[:1])]
    after = _told((position.next,)) if position.next else ""
    return (
        f'<tr><td class="n">{position.index}</td><td class="t">{escape(visible(position.token))}'
        f'</td><td class="n">{nats(position.kl)}</td><td class="t">{cells[0]}</td>'
        f'<td class="t">{cells[1]}</td><td class="t">{after}</td></tr>'
    )


def _told(moves: Sequence[Move]) -> str:
    return "".join(
        f"{escape(visible(move.token))} {escape(percent(move.before))} → "
        f"{escape(percent(move.after))}"
        for move in moves
    )


def _data(seen: Inspection) -> str:
    names = [name for name in _TRACKS if name in seen.continuations] if seen.effect else []
    document = {
        "words": DETAIL if seen.before is None else _between(seen.before, seen.adapter),
        "tracks": {name: _readable(_track(seen, name)) for name in names},
    }
    text = json.dumps(document, allow_nan=False)
    # Inside a script element only these could end it or open a comment.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _between(before: str, adapter: str) -> dict[str, dict[str, str]]:
    names = {"base": before, "adapter": adapter}
    return {language: words | names for language, words in DETAIL.items()}


def _readable(positions: Sequence[Position]) -> list[dict[str, Any]]:
    before = ""
    told = []
    for position in positions:
        before = (before + visible(position.token))[-_CONTEXT:]
        told.append(
            {
                "context": before,
                "kl": position.kl,
                "rose": [_move(move) for move in position.rose if move.notable],
                "fell": [_move(move) for move in position.fell if move.notable],
                "next": _move(position.next) if position.next else None,
            }
        )
    return told


def _move(move: Move) -> dict[str, Any]:
    return {
        "token": visible(move.token),
        "before": move.before,
        "after": move.after,
        "rank_before": move.rank_before,
        "rank_after": move.rank_after,
    }
