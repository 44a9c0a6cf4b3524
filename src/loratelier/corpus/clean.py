"""What a model must not learn from a turn: citation marks and links between notes.

Code, fenced or between backticks, is left as it is.
"""

import re
from dataclasses import dataclass

_FENCE = re.compile(r"^[ \t]*(?:> ?)*[ \t]*(`{3,}|~{3,})(.*)$")
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
# 【69†L325-L333】 and the private-use marks of newer exports; the space before goes too.
_CITATION = re.compile(r" *(?:【[^【】\n]*†[^【】\n]*】|\ue200cite[^\ue201\n]*\ue201)")
_EMBED = re.compile(r"!\[\[[^\[\]\n]+\]\]")
_LINK = re.compile(r"\[\[([^\[\]\n|]+)(?:\|([^\[\]\n]+))?\]\]")


@dataclass(frozen=True)
class Cleaned:
    """A turn's text and what was done to it."""

    text: str
    steps: tuple[str, ...]


def clean(text: str) -> Cleaned:
    """Remove citation marks and embeds, and replace each wikilink by the words it shows."""
    counts = {"citations removed": 0, "wikilinks replaced": 0, "embeds removed": 0}
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if fence:
            closes = found and found[1].startswith(fence) and not found[2].strip()
            lines.append(line)
            fence = "" if closes else fence
        elif found:
            fence = found[1]
            lines.append(line)
        else:
            lines.append(_outside_code(line, counts))
    steps = tuple(f"{what}: {count}" for what, count in counts.items() if count)
    return Cleaned("\n".join(lines), steps)


def _outside_code(line: str, counts: dict[str, int]) -> str:
    pieces: list[str] = []
    end = 0
    for code in _CODE.finditer(line):
        pieces += [_prose(line[end : code.start()], counts), code.group()]
        end = code.end()
    return "".join([*pieces, _prose(line[end:], counts)])


def _prose(text: str, counts: dict[str, int]) -> str:
    text, citations = _CITATION.subn("", text)
    text, embeds = _EMBED.subn("", text)
    counts["citations removed"] += citations
    counts["embeds removed"] += embeds

    def shown(link: re.Match[str]) -> str:
        words = link[2] or " > ".join(part for part in link[1].split("#") if part)
        # [[1, 2]] is a matrix, not a note.
        if not any(char.isalpha() for char in words):
            return link.group()
        counts["wikilinks replaced"] += 1
        return words.strip()

    return _LINK.sub(shown, text)
