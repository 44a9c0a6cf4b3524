"""From scenes that were told and read back to findings."""

from collections.abc import Iterator, Sequence

from loratelier.adapter import Adapter
from loratelier.check.finding import Finding, beyond, within_noise
from loratelier.check.intervals import bootstrap
from loratelier.check.looks import AFTER, BEFORE, Looks
from loratelier.check.meaning import Meaning, Reading, Told, Voice, read_texts, tell_scenes
from loratelier.check.meaning.faults import ERRORS
from loratelier.check.meaning.trip import paired
from loratelier.check.say import NOISE, REPLAY, said, span
from loratelier.check.thresholds import MeaningLimits
from loratelier.corpus.scenes import Scene
from loratelier.scope import Change

# Fewer scenes that were read both times say nothing.
FEWEST = 5
_ERRORS = {
    "split": ("split linkage", "расщепление сцепок"),
    "impoverished": ("impoverished association", "обеднение ассоциаций"),
    "logical": ("logical loss", "логическая потеря"),
}


def measure_scenes(
    looks: Looks, scenes: Sequence[Scene], reader: Adapter | None
) -> tuple[Reading, Told, Told]:
    """Let the base and then the adapter tell scenes to one reader.

    Args:
        looks: both looks of who writes.
        scenes: that the adapter was not trained on.
        reader: an adapter that learned to read scenes; None for the one that is checked.

    Returns:
        The control, what the base told, and what the adapter told.
    """
    reads = looks if reader is None else Looks(Change(looks.base, reader))
    reading = read_texts(scenes, Voice(reads, AFTER))
    before = tell_scenes(reading, Voice(looks, BEFORE))
    after = tell_scenes(reading, Voice(looks, AFTER)) if looks.effect else before
    return reading, before, after


def judge_meaning(
    reading: Reading, before: Told, after: Told, limits: MeaningLimits
) -> Iterator[Finding]:
    """Judge what the adapter's telling loses beyond the base's; say what could not be read."""
    yield _reader(reading, before, after)
    pairs = paired(before.meaning, after.meaning)
    if len(pairs) < FEWEST:
        return
    steps = [new.smatch.f1 - old.smatch.f1 for old, new in pairs]
    change, interval = sum(steps) / len(steps), bootstrap(steps)
    noise = within_noise(interval)
    failed = beyond(change, -limits.smatch, -1) and not noise
    tail = NOISE if noise else ("", "")
    yield Finding(
        name="meaning",
        title=said("Scenes told and read back, Smatch", "Сцены в пересказе, Smatch"),
        figure=change,
        interval=interval,
        threshold=-limits.smatch,
        worse=-1,
        passed=not failed,
        noise=noise,
        sentence=said(
            "Over {count} scenes Smatch's F1 changed by {change} {span} against what the base "
            "told." + tail[0],
            "На {count} сценах F1 Smatch изменилась на {change} {span} против рассказанного "
            "основой." + tail[1],
            count=str(len(pairs)),
            change=f"{change:+.3f}",
            span=span(interval, "{:+.3f}"),
        ),
        remedy=REPLAY if failed else None,
        detail={"before": before.to_json(), "after": after.to_json()},
    )
    for kind in ERRORS:
        rises = [
            float(sum(one.kind == kind for one in new.faults))
            - sum(one.kind == kind for one in old.faults)
            for old, new in pairs
        ]
        yield _error(kind, rises, limits)


def _error(kind: str, rises: Sequence[float], limits: MeaningLimits) -> Finding:
    rise, interval = sum(rises) / len(rises), bootstrap(rises)
    noise = within_noise(interval)
    failed = beyond(rise, limits.errors, 1) and not noise
    english, russian = _ERRORS[kind]
    tail = NOISE if noise else ("", "")
    return Finding(
        name=f"meaning.{kind}",
        title=said("Meaning: {e}", "Смысл: {r}", e=english, r=russian),
        figure=rise,
        interval=interval,
        threshold=limits.errors,
        worse=1,
        passed=not failed,
        noise=noise,
        sentence=said(
            "{e}: {rise} faults a scene {span} against what the base told." + tail[0],
            "{r}: {rise} ошибок на сцену {span} против рассказанного основой." + tail[1],
            e=english.capitalize(),
            r=russian.capitalize(),
            rise=f"{rise:+.2f}",
            span=span(interval, "{:+.2f}"),
        ),
        remedy=REPLAY if failed else None,
    )


def _reader(reading: Reading, before: Told, after: Told) -> Finding:
    control = reading.control
    own = f"{control.smatch.value:.3f}" if control.smatch else "-"
    few = len(paired(before.meaning, after.meaning)) < FEWEST
    return Finding(
        name="meaning.read",
        title=said("Scenes that were no scenes when read", "Сцены, не прочтённые как сцены"),
        figure=float(len(after.meaning.unread)),
        interval=None,
        threshold=None,
        worse=0,
        passed=True,
        noise=False,
        sentence=said(
            "Of {count} scenes the reader made no scene of {gold} when it read the person's own "
            "text (Smatch {own} where it did: its own error), of {old} when the base told them, "
            "of {new} when the adapter did." + (" Too few to say anything." if few else ""),
            "Из {count} сцен читатель не прочёл как сцену {gold} по тексту человека (где прочёл, "
            "Smatch {own}: это его собственная ошибка), {old} в рассказе основы, {new} в рассказе "
            "адаптера." + (" Слишком мало, чтобы судить." if few else ""),
            count=str(control.scenes),
            gold=_unread(control),
            old=_unread(before.meaning),
            new=_unread(after.meaning),
            own=own,
        ),
        detail={"control": control.to_json()},
    )


def _unread(meaning: Meaning) -> str:
    return str(len(meaning.unread))
