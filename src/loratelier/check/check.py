"""``check_adapter``: what an adapter broke, and whether that is too much."""

from collections.abc import Sequence
from datetime import UTC, datetime
from time import perf_counter

from loratelier.adapter import Adapter
from loratelier.base import Base
from loratelier.check.ability import measure_ability
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
from loratelier.check.looks import BEFORE, Looks
from loratelier.check.own import own_examples
from loratelier.check.texts import unrelated
from loratelier.check.thresholds import Thresholds, load_thresholds
from loratelier.corpus import Corpus
from loratelier.kit.errors import InputError
from loratelier.kit.progress import task
from loratelier.scope import Change
from loratelier.scope.prompt import encode_prompt


def check_adapter(
    base: Base,
    adapter: Adapter,
    *,
    corpus: Corpus | None = None,
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
        corpus: what it was trained on, for what it gained there; None leaves that out.
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
    prompts = _requests(languages, requests)
    findings += _expectations(looks, limits, languages, prompts, answer_tokens, corpus)
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


def _expectations(
    looks: Looks,
    limits: Thresholds,
    languages: Sequence[str],
    prompts: Sequence[str],
    answer_tokens: int,
    corpus: Corpus | None,
) -> list[Finding]:
    raw = not looks.base.tokenizer.chat_template
    asked = [encode_prompt(looks.base, prompt, raw=raw).ids for prompt in prompts]
    with task("The base answers unrelated requests", total=1) as bar:
        answers = looks.texts(looks.answers(asked, answer_tokens, BEFORE))
        bar.advance()
    texts = [
        answer_text(looks, prompt, answer)
        for prompt, answer in zip(prompts, answers, strict=True)
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
