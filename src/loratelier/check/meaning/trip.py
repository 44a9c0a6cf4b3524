"""Scene → text → scene with models: one writes, one reads, and they may be one.

The reader loses something of its own. What it loses of the text that a person wrote for a scene is
the control: only what is lost beyond that is laid on the writer.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loratelier.check.intervals import bootstrap
from loratelier.check.looks import Looks
from loratelier.check.meaning.chrf import chrf
from loratelier.check.meaning.compare import (
    Figure,
    Kept,
    Meaning,
    Unread,
    compare_scenes,
    read_answer,
    summed,
)
from loratelier.check.meaning.faults import ERRORS
from loratelier.corpus.scenes import Graph, Scene, write_graph
from loratelier.corpus.scenes.prompts import PROMPTS, about
from loratelier.corpus.written import read_written
from loratelier.kit.errors import InputError
from loratelier.kit.progress import task
from loratelier.scope.prompt import encode_prompt

_AT_ONCE = 16  # prompts of a batch


@dataclass(frozen=True)
class Voice:
    """Who writes or reads: a base at one of its looks."""

    looks: Looks
    look: float

    def says(self, prompts: Sequence[str], limit: int, what: str) -> list[str]:
        """Return greedy answers of at most ``limit`` tokens.

        Raises:
            InputError: a prompt with no room for its answer.
        """
        base = self.looks.base
        raw = not base.tokenizer.chat_template
        ids = [encode_prompt(base, prompt, raw=raw).ids for prompt in prompts]
        longest = max((len(each) for each in ids), default=0)
        if base.context is not None and longest + limit > base.context:
            raise InputError(
                f"A scene of {longest} tokens and {limit} more do not fit {base.name}, which reads "
                f"{base.context}",
                "Leave the longest scenes out",
            )
        # Prompts of like length together, so that little is read for nothing.
        order = sorted(range(len(ids)), key=lambda n: len(ids[n]))
        said: dict[int, str] = {}
        with task(what, total=len(ids)) as bar:
            for start in range(0, len(order), _AT_ONCE):
                part = order[start : start + _AT_ONCE]
                answers = self.looks.answers([ids[n] for n in part], limit, self.look)
                said |= dict(zip(part, self.looks.texts(answers), strict=True))
                bar.advance(len(part))
        return [said[n] for n in range(len(ids))]


@dataclass(frozen=True)
class Told:
    """Scenes that a writer told and a reader read.

    ``texts``: what was written, by scene. ``meaning``: what the reader made of it. Beyond the
    control, over scenes that were read both times: ``lost``, Smatch's F1 of the control less that
    of this (mean over scenes), and ``errors``, faults a scene that the control does not have. They
    are None with no such scene.
    """

    texts: Mapping[str, str]
    meaning: Meaning
    lost: Figure | None
    errors: Mapping[str, Figure] | None

    def to_json(self) -> dict[str, Any]:
        """Return a document of plain values."""
        return asdict(self) | {"meaning": self.meaning.to_json()}


@dataclass(frozen=True)
class Looped:
    """Texts that were read as scenes, told anew, and read again.

    ``unread``: texts that the reader made no scene of. ``chrf``: how much of the text's letters
    came back. ``meaning``: the second reading against the first.
    """

    texts: Mapping[str, str]
    unread: tuple[Unread, ...]
    chrf: Figure | None
    meaning: Meaning

    def to_json(self) -> dict[str, Any]:
        """Return a document of plain values."""
        return asdict(self) | {"meaning": self.meaning.to_json()}


@dataclass(frozen=True)
class Reading:
    """What a reader makes of the texts that a person wrote: the control.

    ``answers``: what it wrote, by scene, whether or not that is a scene.
    """

    reader: Voice
    scenes: tuple[Scene, ...]
    limit: int
    answers: Mapping[str, str]
    control: Meaning


def read_scenes(path: Path) -> tuple[Scene, ...]:
    """Read the scenes of a file.

    Raises:
        InputError: a file that cannot be read, or without scenes.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a text file") from error
    scenes = read_written(text, str(path)).scenes
    if not scenes:
        raise InputError(f"{path} holds no scenes", "Begin it with 'scenes:'")
    return scenes


def read_texts(scenes: Sequence[Scene], reader: Voice, *, limit: int = 400) -> Reading:
    """Let the reader read each scene's own text.

    Args:
        scenes: at least one, each with an id of its own.
        reader: who reads.
        limit: the most tokens of a scene in its notation.

    Raises:
        InputError: no scenes, two of one id, or one that does not fit the base.
    """
    if not scenes:
        raise InputError("There are no scenes", "Give a file that has some")
    twice = next((id for id, n in Counter(each.id for each in scenes).items() if n > 1), None)
    if twice is not None:
        raise InputError(f"The scene '{twice}' is there twice", "Rename or remove one")
    answers = _read(reader, scenes, {each.id: each.text for each in scenes}, limit)
    wanted = {each.id: each.graph for each in scenes}
    return Reading(reader, tuple(scenes), limit, answers, _compared(wanted, answers))


def tell_scenes(reading: Reading, writer: Voice, *, limit: int = 160) -> Told:
    """Let the writer tell each scene, and the reader read it back.

    Args:
        reading: the control, with the scenes and the reader.
        writer: who writes.
        limit: the most tokens of a text.
    """
    wanted = {each.id: each.graph for each in reading.scenes}
    texts = _tell(writer, reading.scenes, wanted, limit)
    answers = _read(reading.reader, reading.scenes, texts, reading.limit)
    meaning = _compared(wanted, answers)
    lost, errors = beyond_control(reading.control, meaning)
    return Told(texts, meaning, lost, errors)


def tell_readings(reading: Reading, writer: Voice, *, limit: int = 160) -> Looped:
    """Text → scene → text: let the writer tell what the reader made of each text.

    Args:
        reading: what it made of them.
        writer: who writes.
        limit: the most tokens of a text.
    """
    read: dict[str, Graph] = {}
    for each in reading.scenes:
        try:
            read[each.id] = read_answer(reading.answers[each.id])
        except InputError:
            continue
    scenes = [each for each in reading.scenes if each.id in read]
    texts = _tell(writer, scenes, read, limit)
    answers = _read(reading.reader, scenes, texts, reading.limit)
    scores = [chrf(each.text, texts[each.id]) for each in scenes]
    return Looped(
        texts=texts,
        unread=reading.control.unread,
        chrf=_mean(scores),
        meaning=_compared(read, answers),
    )


def beyond_control(
    control: Meaning, told: Meaning
) -> tuple[Figure | None, dict[str, Figure] | None]:
    """Return what was lost beyond the control: Smatch's F1, and faults a scene by their kind.

    Only scenes that were read both times say anything. A fault that the control has too is the
    reader's.
    """
    pairs = paired(control, told)
    lost = _mean([one.smatch.f1 - other.smatch.f1 for one, other in pairs])
    if lost is None:
        return None, None
    errors: dict[str, Figure] = {}
    for kind in ERRORS:
        new = [
            float(sum(fault.kind == kind for fault in set(other.faults) - set(one.faults)))
            for one, other in pairs
        ]
        errors[kind] = Figure(sum(new) / len(new), bootstrap(new))
    return lost, errors


def paired(one: Meaning, other: Meaning) -> list[tuple[Kept, Kept]]:
    """Return the scenes that were read both times."""
    second = {kept.scene: kept for kept in other.kept}
    return [(kept, second[kept.scene]) for kept in one.kept if kept.scene in second]


def _tell(
    writer: Voice, scenes: Sequence[Scene], graphs: Mapping[str, Graph], limit: int
) -> dict[str, str]:
    prompts = [
        about(PROMPTS[each.language].output, write_graph(graphs[each.id])) for each in scenes
    ]
    said = writer.says(prompts, limit, "Telling scenes")
    return {each.id: text for each, text in zip(scenes, said, strict=True)}


def _read(
    reader: Voice, scenes: Sequence[Scene], texts: Mapping[str, str], limit: int
) -> dict[str, str]:
    """Return what the reader writes of each text; nothing of a text that is empty."""
    there = [each for each in scenes if texts[each.id].strip()]
    prompts = [about(PROMPTS[each.language].input, texts[each.id]) for each in there]
    said = reader.says(prompts, limit, "Reading scenes")
    read = {each.id: answer for each, answer in zip(there, said, strict=True)}
    return {each.id: read.get(each.id, "") for each in scenes}


def _compared(wanted: Mapping[str, Graph], answers: Mapping[str, str]) -> Meaning:
    kept: list[Kept] = []
    unread: list[Unread] = []
    for id, graph in wanted.items():
        if not answers[id]:
            unread.append(Unread(id, "There is nothing to read"))
            continue
        try:
            kept.append(compare_scenes(id, graph, read_answer(answers[id])))
        except InputError as error:
            unread.append(Unread(id, str(error)))
    return summed(kept, unread)


def _mean(values: Sequence[float]) -> Figure | None:
    return Figure(sum(values) / len(values), bootstrap(values)) if values else None
