"""What an answer must hold, beyond its shape, before it becomes a row."""

import json
import re
from collections import Counter
from typing import Any

from loratelier.corpus.hygiene.tongue import UNKNOWN, language_of
from loratelier.corpus.lineage import SCRIPTS


class Invalid(Exception):
    """An answer that cannot be used; the text says why, to the model too."""


_THINKING = re.compile(r"\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_FENCED = re.compile(r"\A[^\[{]*?```(?:json)?\s*\n(.*?)\n\s*```", re.DOTALL | re.IGNORECASE)
_BEGIN = re.compile(r"[\[{]")
_ABOUT_ITSELF = re.compile(
    r"\A\W*(?:sure|certainly|of course|here(?:'s| is| are)|okay|"
    r"конечно|хорошо|вот|разумеется)\b[^\n]*:\s*(?:\n|\Z)",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"(?<=\d)[ .,'\u00a0\u202f](?=\d{3}(?!\d))")
_NUMBER = re.compile(r"\d{2,}")
_LINK = re.compile(r"https?://[^\s)>\]]+")
_CODE = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
_LEAST, _MOST = 0.4, 2.5  # how long a rephrasing may be beside its source
_SENTENCE = re.compile(r"[.!?…]+(?:\s|$)|\n")
_LONG_SENTENCE = 4  # words of one that nobody says twice by chance
_STEM = 5  # letters
_WORD = re.compile(rf"[^\W\d_]{{{_STEM},}}")
_TELLING_WORDS = 8  # longer words from which on it can be told what a text is about
_ABOUT = 0.1
_SHORT = 80  # characters by which it may always be longer
_TELLING = 200  # letters from which on a language can be told safely


def without_thinking(answer: str) -> str:
    """Return an answer without the reasoning that some models write before it."""
    return _THINKING.sub("", answer, count=1).strip()


def parsed_json(answer: str) -> Any:
    """Return the JSON in an answer: fenced, bare, or after words that announce it.

    Raises:
        Invalid: there is none.
    """
    text = without_thinking(answer)
    fenced = _FENCED.match(text)
    text = fenced[1] if fenced else text
    begin = _BEGIN.search(text)
    if begin is None:
        raise Invalid("there is no JSON in it")
    try:
        value, _ = json.JSONDecoder().raw_decode(text, begin.start())
        # Half of a surrogate pair can be written in JSON and is no character.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Invalid("it has characters that are none") from error
    except (ValueError, RecursionError) as error:
        raise Invalid(f"it is no JSON: {error}") from error
    return value


def check_reworded(text: str, source: str) -> None:
    """Hold that a text says it in other words, at about the same length, and only that.

    Raises:
        Invalid: it does not.
    """
    if not text:
        raise Invalid("it is empty")
    if text.split() == source.split():
        raise Invalid("it is the text itself, word for word")
    if _ABOUT_ITSELF.match(text) and not _ABOUT_ITSELF.match(source):
        raise Invalid("it begins with words about itself; give the new text alone")
    if "<text>" in text or "</text>" in text:
        raise Invalid("it has the tags of the request in it")
    if not _LEAST * len(source) <= len(text) <= max(_MOST * len(source), len(source) + _SHORT):
        raise Invalid(
            f"it has {len(text)} characters and the text {len(source)}; say the same, no more and "
            "no less"
        )


def check_about(text: str, source: str) -> None:
    """Hold that a text speaks of what its source says, and does not run in circles.

    No proof of its meaning, and a guard against the worst: a weak model's loops, and answers about
    something else. Of the source's longer words, by their first letters, a tenth must be there.

    Raises:
        Invalid: it does not.
    """
    said = Counter(_sentences(text)) - Counter(_sentences(source))
    if any(times > 1 for times in said.values()):
        raise Invalid("it repeats itself")
    wanted, found = _stems(source), _stems(text)
    if len(wanted) >= _TELLING_WORDS and len(wanted & found) < _ABOUT * len(wanted):
        raise Invalid("it does not speak of what the text says")


def _sentences(text: str) -> list[str]:
    cut = (" ".join(one.split()).casefold() for one in _SENTENCE.split(text))
    return [one for one in cut if one.count(" ") >= _LONG_SENTENCE - 1]


def _stems(text: str) -> set[str]:
    """Return the first letters of the longer words, which stay where the endings change."""
    return {word[:_STEM].casefold() for word in _WORD.findall(text)}


def check_kept(text: str, source: str) -> None:
    """Hold that numbers of two digits and more, links and code of the source are still there.

    Raises:
        Invalid: the first that is missing is named.
    """
    for block in _CODE.findall(source):
        if block.strip() not in text:
            raise Invalid("its code is not the text's; keep code as it is")
    for link in _LINK.findall(source):
        if link.rstrip(".,;:!?") not in text:
            raise Invalid(f"the link {link} is missing")
    missing = sorted(_numbers(source) - _numbers(text))
    if missing:
        raise Invalid(f"the number {missing[0]} is missing")


def check_grounded(text: str, source: str) -> None:
    """Hold that every number of two digits and more stands in the source.

    Raises:
        Invalid: the first that does not is named.
    """
    invented = sorted(_numbers(text) - _numbers(source))
    if invented:
        raise Invalid(f"the number {invented[0]} does not stand in the text")


def _numbers(text: str) -> set[str]:
    return set(_NUMBER.findall(_THOUSANDS.sub("", text)))


def check_language(text: str, source: str) -> None:
    """Hold that both are in one script and, where there is enough to tell, in one language.

    Raises:
        Invalid: they are not.
    """
    scripts = _script(text), _script(source)
    if "" not in scripts and scripts[0] != scripts[1]:
        raise Invalid("it is not in the language of the text")
    if min(sum(map(str.isalpha, one)) for one in (text, source)) < _TELLING:
        return
    found, wanted = language_of(text), language_of(source)
    if UNKNOWN not in (found, wanted) and found != wanted:
        raise Invalid(f"it is in '{found}', the text in '{wanted}'")


def _script(text: str) -> str:
    """Return the script of three letters in four; empty where there is none."""
    counts = {code: len(pattern.findall(text)) for code, pattern in SCRIPTS.items()}
    best = max(counts, key=lambda code: counts[code])
    total = sum(counts.values())
    return best if total >= 20 and counts[best] >= 0.75 * total else ""
