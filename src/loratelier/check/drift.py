"""Drift: what became of texts, expectations and abilities that were not asked for.

On plain prose: bits per byte, paired by document. Inside the chat template: KL(base || adapter) per
token and how often both find the same token likeliest, on prose that is continued, on the base's
own answers to unrelated requests, and on the adapter's own rows, where a change is wanted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loratelier.check.intervals import Interval, bootstrap, ratio
from loratelier.check.looks import Looks, Read, Text
from loratelier.check.texts import prose
from loratelier.kit.progress import task
from loratelier.scope.prompt import encode_prompt
from loratelier.train.examples import Example

# A base that needs no more bits for a character knows the language well enough to lose something.
FLUENT = 1.6
LANGUAGES = ("en", "ru")
_OWN_ROWS = 16


@dataclass(frozen=True)
class GeneralText:
    """Bits per byte on plain prose; ``rise`` is relative, its interval over ``documents``."""

    language: str
    documents: int
    tokens: int
    before: float
    after: float
    rise: float
    interval: Interval
    difference: float
    difference_interval: Interval
    per_character: float
    kl: float
    top_1: float


@dataclass(frozen=True)
class Moved:
    """Texts under the same wrapper: ``kl`` in nats per token, ``top_1`` the share of agreement.

    ``before`` and ``after`` are the loss in nats per token. Intervals are over ``texts``.
    """

    texts: int
    tokens: int
    kl: float
    kl_interval: Interval
    top_1: float
    top_1_interval: Interval
    before: float
    after: float
    gain: float
    gain_interval: Interval


def general(looks: Looks, language: str) -> GeneralText:
    """Read plain prose of a language, each document on its own, without a chat template."""
    reads, sizes, characters = [], [], []
    texts = prose(language)
    with task(f"General text ({language})", total=len(texts)) as bar:
        for text in texts:
            encoded = looks.base.tokenizer(
                text, add_special_tokens=False, return_offsets_mapping=True
            )
            spelled = text[encoded["offset_mapping"][1][0] :]
            reads.append(looks.compare(Text(tuple(encoded["input_ids"]), 1)))
            sizes.append(len(spelled.encode("utf-8")))
            characters.append(len(spelled))
            bar.advance()
    old = [read.before / math.log(2) for read in reads]
    new = [read.after / math.log(2) for read in reads]
    steps = [after - before for before, after in zip(old, new, strict=True)]
    size, tokens = sum(sizes), sum(read.tokens for read in reads)
    return GeneralText(
        language=language,
        documents=len(texts),
        tokens=tokens,
        before=sum(old) / size,
        after=sum(new) / size,
        rise=sum(steps) / sum(old),
        interval=ratio(steps, old),
        difference=sum(steps) / size,
        difference_interval=ratio(steps, sizes),
        per_character=sum(old) / sum(characters),
        kl=sum(read.kl for read in reads) / tokens,
        top_1=sum(read.agreed for read in reads) / tokens,
    )


def fluent(measured: Sequence[GeneralText]) -> tuple[str, ...]:
    """Return the languages that the base knows; the one it knows best if it knows none."""
    known = tuple(one.language for one in measured if one.per_character <= FLUENT)
    best = min(measured, key=lambda one: one.per_character)
    return known or (best.language,)


def wrapped_prose(looks: Looks, languages: Sequence[str]) -> Moved:
    """Read the second half of neutral paragraphs as an answer that continues the first."""
    ask = {"en": "Continue this text:", "ru": "Продолжи этот текст:"}
    texts = []
    for language in languages:
        for paragraph in prose(language)[:8]:
            middle = paragraph.index(" ", len(paragraph) // 2)
            prompt = f"{ask[language]}\n\n{paragraph[:middle]}"
            texts.append(answer_text(looks, prompt, paragraph[middle:].strip()))
    return moved(looks, texts, "Prose inside the chat template")


def own_rows(looks: Looks, rows: Sequence[Example]) -> Moved:
    """Read the adapter's own rows, of each the first turn that is learned."""
    texts = []
    for row in rows[:_OWN_ROWS]:
        begin = row.learned.index(True)
        rest = row.learned[begin:]
        end = begin + (rest.index(False) if False in rest else len(rest))
        texts.append(Text(row.ids[:end], begin))
    return moved(looks, texts, "The adapter's own rows")


def answer_text(looks: Looks, prompt: str, answer: str, *, system: str | None = None) -> Text:
    """Return an answer after its prompt, in the chat template where the base has one."""
    raw = not looks.base.tokenizer.chat_template
    asked = encode_prompt(looks.base, prompt, raw=raw, system=system).ids
    ids = looks.base.tokenizer(answer, add_special_tokens=False)["input_ids"]
    return Text((*asked, *ids), len(asked))


def moved(looks: Looks, texts: Sequence[Text], what: str) -> Moved:
    """Read texts with both looks."""
    reads: list[Read] = []
    with task(what, total=len(texts)) as bar:
        for text in texts:
            reads.append(looks.compare(text))
            bar.advance()
    tokens = [read.tokens for read in reads]
    count = sum(tokens)
    gains = [read.before - read.after for read in reads]
    agreed = [read.agreed / read.tokens for read in reads]
    return Moved(
        texts=len(reads),
        tokens=count,
        kl=sum(read.kl for read in reads) / count,
        kl_interval=ratio([read.kl for read in reads], tokens),
        top_1=sum(read.agreed for read in reads) / count,
        top_1_interval=bootstrap(agreed, tokens),
        before=sum(read.before for read in reads) / count,
        after=sum(read.after for read in reads) / count,
        gain=sum(gains) / count,
        gain_interval=ratio(gains, tokens),
    )
