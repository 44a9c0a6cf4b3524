"""Drawings as SVG: heat maps with labels, in two languages, for light and dark paper."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# English and Russian.
Both = tuple[str, str]
LANGUAGES = ("en", "ru")

# What a drawing looks like when it stands alone; a page brings the same names as its own.
STYLE = """
svg { --ink: #1d1c1a; --soft: #5f5b54; --line: #dedad1; --paper: #fbfaf7; --up: #c2511a; --down: #3c68a8; background: var(--paper); }
@media (prefers-color-scheme: dark) {
  svg { --ink: #efebe3; --soft: #aca599; --line: #3a3732; --paper: #171614; --up: #f0935b; --down: #8fb1e0; }
}
"""  # noqa: E501
# What every drawing needs, in a page too.
RULES = """
.pic text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--soft); }
.pic text.strong { fill: var(--ink); font-weight: 600; }
.pic text.cell { font: 10px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: var(--ink); }
.pic .up { fill: var(--up); }
.pic .down { fill: var(--down); }
.pic .box { fill: none; stroke: var(--line); }
.pic .chosen { fill: none; stroke: var(--ink); stroke-width: 2; }
.pic .rule { stroke: var(--soft); stroke-dasharray: 2 3; }
"""  # noqa: E501


@dataclass(frozen=True)
class Table:
    """A drawing's figures, for those who do not see it: heads in both languages, and rows."""

    heads: tuple[Both, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A drawing and what it shows here.

    ``name`` is the stem of its file; ``says`` is one sentence that can be read without knowing the
    theory, in English and Russian; ``drawing`` is the inside of an ``<svg>`` of ``width`` times
    ``height`` units.
    """

    name: str
    title: Both
    says: Both
    width: float
    height: float
    drawing: str
    table: Table | None = None

    def to_svg(self, language: str = "en") -> str:
        """Return a file's text: the drawing with its title above and its sentence below.

        Args:
            language: ``"en"`` or ``"ru"``.
        """
        number = LANGUAGES.index(language)
        other = LANGUAGES[1 - number]
        says = _wrapped(self.says[number], 16, self.height + 56, self.width)
        height = self.height + 62 + 16 * says.count("<text")
        width = self.width + 32
        size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
        space = "http://www.w3.org/2000/svg"
        return f"""<svg xmlns="{space}" class="pic" lang="{language}" role="img" {size}>
<title>{escape(self.title[number])}</title><desc>{escape(self.says[number])}</desc>
<style>{STYLE}{RULES}.pic [lang="{other}"] {{ display: none; }}</style>
<text class="strong" x="16" y="24">{escape(self.title[number])}</text>
<g transform="translate(16 36)">{self.drawing}</g>
{says}
</svg>
"""

    def to_html(self) -> str:
        """Return the figure for a page that has :data:`RULES` among its own."""
        return f"""<figure class="picture" id="picture-{self.name}">
<h3>{both(self.title)}</h3>
<div class="scroll"><svg class="pic" viewBox="0 0 {self.width:.0f} {self.height:.0f}" \
style="min-width:{min(self.width, 560):.0f}px" aria-hidden="true">{self.drawing}</svg></div>
<figcaption>{both(self.says)}</figcaption>
{_figures(self.table) if self.table else ""}</figure>"""


def both(words: Both) -> str:
    """Return words in both languages, of which a page shows one."""
    english, russian = words
    return f'<span lang="en">{escape(english)}</span><span lang="ru">{escape(russian)}</span>'


def _figures(table: Table) -> str:
    heads = "".join(f"<th>{both(head)}</th>" for head in table.heads)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    label = both(("As figures", "Числами"))
    return f"""<details><summary>{label}</summary><div class="scroll"><table>
<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>"""


def _wrapped(words: str, x: float, y: float, width: float) -> str:
    """Set a sentence in lines of at most ``width`` units, 6.2 a character."""
    lines, line = [], ""
    for word in words.split():
        if line and len(line) + len(word) + 1 > width / 6.2:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    lines.append(line)
    return "".join(
        f'<text x="{x}" y="{y + 16 * number}">{escape(one)}</text>'
        for number, one in enumerate(lines)
    )


@dataclass(frozen=True)
class Cell:
    """A cell of a heat map: its shade from -1 to 1, what is told of it, and what is written in."""

    shade: float
    told: str
    text: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class Grid:
    """A heat map. A cell that is None is not there; one of shade 0 is an empty box."""

    cells: Sequence[Sequence[Cell | None]]
    rows: Sequence[str]
    columns: Sequence[str]
    row_title: Both = ("", "")
    column_title: Both = ("", "")
    cell_width: float = 22
    cell_height: float = 18

    @property
    def left(self) -> float:
        """Where the first column begins."""
        longest = max((len(name) for name in self.rows), default=0)
        return 14 + 6.4 * max(longest, len(self.row_title[1]) if self.row_title[1] else 0)

    @property
    def width(self) -> float:
        """Of the whole drawing."""
        return self.left + self.cell_width * len(self.columns) + 4

    @property
    def height(self) -> float:
        """Of the whole drawing."""
        return 36 + self.cell_height * len(self.rows)

    def draw(self) -> str:
        """Return the inside of an ``<svg>``: column labels above, row labels at the left."""
        parts = [label(self.row_title, 0, 24), label(self.column_title, self.left, 10)]
        longest = max((len(name) for name in self.columns), default=0)
        every = max(1, math.ceil((7 * longest + 4) / self.cell_width))  # no label over another
        for number, name in enumerate(self.columns):
            if number % every == 0:
                x = self.left + self.cell_width * (number + 0.5)
                parts.append(f'<text x="{x:.1f}" y="26" text-anchor="middle">{escape(name)}</text>')
        for number, (name, row) in enumerate(zip(self.rows, self.cells, strict=True)):
            y = 32 + self.cell_height * number
            middle = y + self.cell_height / 2 + 4
            parts.append(
                f'<text x="{self.left - 6:.1f}" y="{middle:.1f}" text-anchor="end">'
                f"{escape(name)}</text>"
            )
            parts += [
                self._cell(cell, self.left + self.cell_width * at, y)
                for at, cell in enumerate(row)
                if cell is not None
            ]
        return "".join(parts)

    def _cell(self, cell: Cell, x: float, y: float) -> str:
        width, height = self.cell_width - 1, self.cell_height - 1
        box = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        told = f"<title>{escape(cell.told)}</title>"
        parts = [f'<rect class="box" {box}/>']
        if cell.shade:
            side = "up" if cell.shade > 0 else "down"
            parts.append(
                f'<rect class="{side}" {box} fill-opacity="{min(1, abs(cell.shade)):.2f}"/>'
            )
        if cell.chosen:
            parts.append(f'<rect class="chosen" {box}/>')
        if cell.text:
            parts.append(
                f'<text class="cell" x="{x + width / 2:.1f}" y="{y + height / 2 + 3.5:.1f}" '
                f'text-anchor="middle">{escape(cell.text)}</text>'
            )
        return f"<g>{told}{''.join(parts)}</g>"


def label(words: Both, x: float, y: float) -> str:
    """Return a text in both languages at one place; nothing for empty words."""
    return "".join(
        f'<text lang="{language}" x="{x:.1f}" y="{y:.1f}">{escape(word)}</text>'
        for language, word in zip(LANGUAGES, words, strict=True)
        if word
    )
