"""How a chain is asked for, and the one rule by which an answer is read.

**The rule.** A chain states its answer where it says ``Answer:`` (``Ответ:``) at the beginning of a
line or after a sentence, for the last time; what stands before it is the chain. Of the words after
the colon, up to the line's end, the answer is: of a number the first number; of options the one
that is named first; otherwise all of the words, in small letters, without marks at their ends. A
chain that states none is asked: the cue is put after it, and the likeliest words that follow are
read by the same rule.
"""

import re
from dataclasses import dataclass

from loratelier.scope.reasoning.problems import Language, Problem

_WORD = {"en": "Answer", "ru": "Ответ"}
_STATED = re.compile(r"(?:^|(?<=[.!?…\n])[ \t]*)[*_#]*(?:Answer|Ответ)[*_]*:", re.MULTILINE)
_NUMBER = re.compile(r"[-−]?\d+(?:[.,]\d+)?")
_INSTRUCTION = {
    "en": "Think step by step. Then end with one line: “Answer:” and the answer.",
    "ru": "Рассуждай по шагам. В конце напиши одну строку: «Ответ:» и сам ответ.",
}


@dataclass(frozen=True)
class Said:
    """A written text in two: the chain, and the words of its answer (None where it has none)."""

    chain: str
    answer: str | None


def asked(problem: Problem) -> str:
    """Return what the model is asked: the problem, and how to answer."""
    return f"{problem.text}\n\n{_INSTRUCTION[problem.language]}"


def cue(chain: str, language: Language) -> str:
    """Return a chain with the words after it that only an answer can follow."""
    return f"{chain.rstrip()}\n{_WORD[language]}:" if chain.strip() else f"{_WORD[language]}:"


def parted(text: str) -> Said:
    """Part a written text into its chain and what it states."""
    found = list(_STATED.finditer(text))
    if not found:
        return Said(text.rstrip(), None)
    last = found[-1]
    return Said(text[: last.start()].rstrip(), text[last.end() :])


def read(words: str | None, problem: Problem) -> str | None:
    """Return the answer in words that follow the colon; None where they hold none."""
    if words is None:
        return None
    line = next((line for line in words.splitlines() if line.strip()), "")
    if problem.form == "number":
        return _number(line)
    if problem.form == "option":
        return _option(line, problem.options)
    bare = line.strip().strip(".,;:!?…*_\"'“”«»").casefold()
    return " ".join(bare.split()) or None


def _number(line: str) -> str | None:
    found = _NUMBER.search(line.replace("−", "-"))
    if not found:
        return None
    value = float(found[0].replace(",", "."))
    return str(int(value)) if value.is_integer() else str(value)


def _option(line: str, options: tuple[str, ...]) -> str | None:
    places = {
        option: found.start()
        for option in options
        if (found := re.search(rf"(?<!\w){re.escape(option)}(?!\w)", line, re.IGNORECASE))
    }
    return min(places, key=places.__getitem__) if places else None
