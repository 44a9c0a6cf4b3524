"""What to train on, for a person who has texts and a machine and no opinion yet."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil

import torch

from loratelier.base.known import Known, known_bases
from loratelier.base.plan import MemoryPlan, Method, Training, plan_training
from loratelier.base.plan.figures import Gpu
from loratelier.corpus import Corpus
from loratelier.kit.errors import InputError
from loratelier.kit.progress import task

# Characters of a token, about: English in a vocabulary of 50,000, Russian in one of 150,000.
_CHARACTERS = {"en": 4.0, "ru": 3.0}
# As recipes/voice.yaml: epochs at most.
EPOCHS = 3
BATCH, RANK = 1024, 8


@dataclass(frozen=True)
class Texts:
    """What the texts are: rows, characters, tokens (an estimate), languages, the main one first."""

    rows: int
    characters: int
    tokens: int
    languages: tuple[str, ...]


@dataclass(frozen=True)
class Offer:
    """A base with what training it would take: an estimate, nothing of it measured.

    ``memory`` and ``adapter`` are bytes, ``seconds`` of the whole training at most (all epochs).
    ``fits``: into the machine's memory. ``reads``: it reads every language of the texts.
    """

    base: Known
    method: Method
    memory: int
    seconds: float
    adapter: int
    fits: bool
    reads: bool


def texts_of(corpus: Corpus) -> Texts:
    """Say what a corpus holds."""
    rows = corpus.rows.to_pylist()
    characters, by_language = 0, dict[str, int]()
    for row in rows:
        messages = row["messages"] or [{"content": row["text"]}]
        size = sum(len(message["content"]) for message in messages)
        characters += size
        language = row.get("language") or "en"
        by_language[language] = by_language.get(language, 0) + size
    # A language of a twentieth of the text is a quotation.
    spoken = [name for name, size in by_language.items() if size >= characters / 20]
    languages = tuple(sorted(spoken, key=lambda name: -by_language[name]))
    tokens = sum(size / _CHARACTERS.get(name, 3.0) for name, size in by_language.items())
    return Texts(len(rows), characters, ceil(tokens), languages)


def offers(texts: Texts, machine: Gpu, bases: Iterable[Known] | None = None) -> list[Offer]:
    """Return what each base would take, those that read the texts first, then by size.

    Larger ones than the first that does not fit are left out.
    """
    asked = list(bases or known_bases())
    made: list[Offer] = []
    with task("Planning", total=len(asked)) as bar:
        for base in asked:
            made.append(_offer(texts, machine, base))
            bar.advance()
            if not made[-1].fits:
                break
    return sorted(made, key=lambda offer: not offer.reads)


def recommended(found: Sequence[Offer], hours: float) -> Offer:
    """Return the largest base that reads the texts, fits and is trained within the time.

    Where none is quick enough, the smallest that fits and reads; the demo base is no answer to
    texts that it does not read.

    Raises:
        InputError: nothing that reads the texts fits into the machine.
    """
    fitting = [offer for offer in found if offer.fits and offer.reads]
    if not fitting:
        raise InputError(
            "No base that we know reads these texts and fits into this machine",
            "Name a base with --base, or a larger machine with --machine",
        )
    # The demo base is for trying the road: whatever else there is goes before it.
    serious = [offer for offer in fitting if offer.base.spec != "demo"] or fitting
    quick = [offer for offer in serious if offer.seconds <= hours * 3600]
    if quick:
        return quick[-1]
    return min(fitting, key=lambda offer: offer.seconds)


def _offer(texts: Texts, machine: Gpu, base: Known) -> Offer:
    method: Method = "lora"
    chosen = _planned(base, machine, method)
    if chosen.total > machine.memory:
        method = "qlora"
        chosen = _planned(base, machine, method)
    pace = chosen.burden.on(machine).seconds
    return Offer(
        base=base,
        method=method,
        memory=chosen.total,
        seconds=pace * texts.tokens / 1000 * EPOCHS,
        adapter=chosen.trained * 4,
        fits=chosen.total <= machine.memory,
        reads=set(texts.languages) <= set(base.languages),
    )


def _planned(base: Known, machine: Gpu, method: Method) -> MemoryPlan:
    on_cpu = machine.name == "cpu"
    return _walked(base, method, on_cpu, on_cpu or machine.bf16 is None)


@cache
def _walked(base: Known, method: Method, on_cpu: bool, whole: bool) -> MemoryPlan:
    dtype = torch.float32 if method == "lora" and whole else None
    training = Training(
        method=method,
        rank=RANK,
        dtype=dtype,
        batch_tokens=BATCH,
        device="cpu" if on_cpu else "cuda",
    )
    return plan_training(base.config, training)
