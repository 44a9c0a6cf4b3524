"""``check_adapter``: what an adapter broke, and whether that is too much."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter

from loratelier.adapter import Adapter
from loratelier.base import Base
from loratelier.check.ability import measure_ability
from loratelier.check.behaviour import Behaviour, run_behaviour
from loratelier.check.drift import (
    LANGUAGES,
    answer_text,
    fluent,
    general,
    moved,
    own_rows,
    wrapped_prose,
)
from loratelier.check.finding import Finding, Verdict
from loratelier.check.judge_drift import judge_ability, judge_general, judge_moved, judge_own
from loratelier.check.judge_leak import judge_answers, judge_behaviour, judge_style
from loratelier.check.judge_meaning import judge_meaning, measure_scenes
from loratelier.check.leak import lengths, markers, styled
from loratelier.check.looks import AFTER, BEFORE, Looks
from loratelier.check.own import own_dialogues, own_examples
from loratelier.check.style import learn_style
from loratelier.check.texts import unrelated
from loratelier.check.thresholds import Thresholds, load_thresholds
from loratelier.corpus import Corpus
from loratelier.corpus.scenes import Scene
from loratelier.kit.errors import InputError
from loratelier.kit.progress import task
from loratelier.scope import Change
from loratelier.scope.prompt import encode_prompt

# Rows that the style is learned from, and the fewest that will do.
_STYLE_ROWS, _FEWEST_ROWS = 32, 15


@dataclass(frozen=True)
class _Asked:
    """Unrelated requests with the greedy answers of both looks."""

    prompts: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]


def check_adapter(
    base: Base,
    adapter: Adapter,
    *,
    corpus: Corpus | None = None,
    behaviour: Behaviour | None = None,
    scenes: Sequence[Scene] = (),
    reader: Adapter | None = None,
    thresholds: Thresholds | None = None,
    strength: float = 1.0,
    items: int = 40,
    requests: int = 24,
    answer_tokens: int = 48,
    seed: int = 0,
) -> Verdict:
    """Measure what an adapter does where it was not asked to do anything, and judge it.

    Args:
        base: the base; it is left as it was.
        adapter: made for that base.
        corpus: what it was trained on, for what it gained there and for its style; None leaves
            both out.
        behaviour: tests of its answers; None for none.
        scenes: told and read back, for what of their meaning is lost; none by default (slow).
        reader: the adapter that reads the scenes; None for the one that is checked.
        thresholds: None for the defaults.
        strength: the gate it is worn at.
        items: of each task with endings to choose from; written tasks have half as many.
        requests: how many unrelated requests are answered.
        answer_tokens: the most tokens of each such answer.
        seed: draws the tasks' items.

    Raises:
        InputError: an adapter for another base, or a number below 1.
    """
    for name, value in (("items", items), ("requests", requests), ("answer_tokens", answer_tokens)):
        if value < 1:
            raise InputError(f"{name} is {value}", "Give 1 or more")
    began = perf_counter()
    limits = thresholds or load_thresholds()
    looks = Looks(Change(base, adapter, strength=strength))
    measured = [general(looks, language) for language in LANGUAGES]
    languages = fluent(measured)
    findings = [
        judge_general(one, limits.drift, judged=one.language in languages) for one in measured
    ]
    asked = _ask(looks, _requests(languages, requests), answer_tokens)
    findings += _expectations(looks, limits, languages, asked, corpus)
    findings += _leaks(looks, limits, asked, corpus, answer_tokens)
    if behaviour is not None:
        findings.append(judge_behaviour(run_behaviour(looks, behaviour), limits.behaviour))
    if scenes:
        findings += judge_meaning(*measure_scenes(looks, scenes, reader), limits.meaning)
    ability = measure_ability(looks, languages, items=items, seed=seed)
    findings += judge_ability(ability, limits.drift)
    return Verdict(
        adapter=adapter.name,
        digest=adapter.digest,
        base=base.name,
        fingerprint=base.fingerprint,
        strength=strength,
        effect=looks.effect,
        languages=languages,
        seed=seed,
        findings=tuple(findings),
        seconds=perf_counter() - began,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _requests(languages: Sequence[str], count: int) -> list[str]:
    """Return unrelated requests, the languages in turn."""
    each = -(-count // len(languages))
    prompts = [one.prompt for language in languages for one in unrelated(language, each)]
    return prompts[:count]


def _ask(looks: Looks, prompts: Sequence[str], limit: int) -> _Asked:
    with task("Answers to unrelated requests", total=2) as bar:
        before = _answers(looks, prompts, limit, BEFORE)
        bar.advance()
        after = _answers(looks, prompts, limit, AFTER) if looks.effect else before
        bar.advance()
    return _Asked(tuple(prompts), tuple(before), tuple(after))


def _answers(looks: Looks, prompts: Sequence[str], limit: int, look: float) -> list[str]:
    raw = not looks.base.tokenizer.chat_template
    ids = [encode_prompt(looks.base, prompt, raw=raw).ids for prompt in prompts]
    return looks.texts(looks.answers(ids, limit, look))


def _expectations(
    looks: Looks,
    limits: Thresholds,
    languages: Sequence[str],
    asked: _Asked,
    corpus: Corpus | None,
) -> list[Finding]:
    texts = [
        answer_text(looks, prompt, answer)
        for prompt, answer in zip(asked.prompts, asked.before, strict=True)
        if answer
    ]
    prose = wrapped_prose(looks, languages)
    # A base that answers nothing at all is still read at its prose.
    elsewhere = moved(looks, texts, "Unrelated requests") if texts else prose
    findings = list(judge_moved(prose, elsewhere, limits.drift))
    if corpus is not None:
        own = own_rows(looks, own_examples(looks.base, looks.change.after, corpus))
        findings.append(judge_own(own, elsewhere))
    return findings


def _leaks(
    looks: Looks, limits: Thresholds, asked: _Asked, corpus: Corpus | None, answer_tokens: int
) -> list[Finding]:
    marked = markers(asked.before, asked.after)
    findings = list(judge_answers(lengths(asked.before, asked.after), marked, limits.leak))
    pairs = own_dialogues(corpus)[:_STYLE_ROWS] if corpus is not None else []
    # Five folds need a few pairs each.
    if len(pairs) < _FEWEST_ROWS:
        return findings
    with task("The base answers the adapter's own requests", total=1) as bar:
        answers = _answers(looks, [prompt for prompt, _ in pairs], answer_tokens, BEFORE)
        bar.advance()
    style = learn_style([answer for _, answer in pairs], answers)
    seen = styled(style, asked.prompts, asked.before, asked.after) if style.tells else None
    return [judge_style(style, seen, limits.leak), *findings]
