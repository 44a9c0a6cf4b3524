"""``look_at_chains``: chains of thought before and after, and how far answers rest on them."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import get_args

from loratelier.corpus.structures import Structure
from loratelier.kit.errors import InputError, did_you_mean
from loratelier.scope.change import Change
from loratelier.scope.prompt import encode_prompt, end_ids, words
from loratelier.scope.reasoning.answers import asked, parted, read
from loratelier.scope.reasoning.chains import Chain, Chains, Curve, Pair, Test
from loratelier.scope.reasoning.curves import curve_of, means
from loratelier.scope.reasoning.faithful import Asking, Draft
from loratelier.scope.reasoning.problems import Problem
from loratelier.scope.reasoning.sentences import sentences
from loratelier.scope.reasoning.structure import shipped, shown_in
from loratelier.scope.reasoning.verdict import Paired, differences
from loratelier.scope.reasoning.writing import Job, Writer

TESTS: tuple[Test, ...] = get_args(Test)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
Figures = dict[str, Paired]


def look_at_chains(
    change: Change,
    problems: Sequence[Problem],
    *,
    seeds: Sequence[int] = (0,),
    temperature: float = 0.6,
    max_new_tokens: int = 160,
    tests: Sequence[Test] = TESTS,
    shares: Sequence[float] = SHARES,
    structures: Sequence[Structure] | None = None,
    raw: bool = False,
    system: str | None = None,
    at_once: int = 32,
) -> Chains:
    """Let both sides think about the same problems, and compare what they thought.

    Both sides draw from one stream of random numbers a problem and seed, so that they part only
    where their expectations do. Lengths, structures, answers and four tests of faithfulness
    (arXiv:2307.13702) are compared over problems; see :class:`Difference` for what may be said.

    Args:
        change: what is looked at.
        problems: from :func:`problems`, or a person's own from :func:`prompts`.
        seeds: each problem is thought about once for each.
        temperature: divides the scores; 0 is greedy, and more than one seed is then refused.
        max_new_tokens: the most tokens of a chain.
        tests: ``early``, ``mistake``, ``paraphrase``, ``filler``; none to leave them out.
        shares: where on a chain the tests are made; 0 and 1 are always among them.
        structures: templates whose signs are sought; without it those that come along.
        raw: ask without the chat template, for bases that have none.
        system: a system message.
        at_once: rows of a batch, both sides counted.

    Raises:
        InputError: no problems, two of one id, figures out of range, or more tokens than the base
            reads.
    """
    _check(problems, seeds, temperature, max_new_tokens, tests, shares)
    base = change.base
    structures = shipped() if structures is None else structures
    shares = tuple(sorted({0.0, *shares, 1.0}))
    writer = Writer(change, at_once)
    prompts = {p.id: encode_prompt(base, asked(p), raw=raw, system=system).ids for p in problems}
    each = [(problem, seed) for problem in problems for seed in seeds]
    written = writer.write(
        [Job(prompts[p.id], prompts[p.id], f"{seed}/{p.id}") for p, seed in each],
        limit=max_new_tokens,
        temperature=temperature,
        what="Thinking on both sides",
    )
    texts = [(words(base, before), words(base, after)) for before, after in written]
    drafts = [
        Draft(p, seed, prompts[p.id], (parted(before).chain, parted(after).chain))
        for (p, seed), (before, after) in zip(each, texts, strict=True)
    ]
    asking = Asking(base, writer, temperature, max_new_tokens)
    found = asking.answers(drafts, tests, shares)
    golds = _golds(writer, asking, drafts)
    ends = end_ids(base)
    pairs = []
    for of, draft in enumerate(drafts):
        sides = [
            _chain(
                draft.problem,
                texts[of][side],
                written[of][side],
                bool(written[of][side]) and written[of][side][-1] in ends,
                found["early", 1.0][of][side],
                golds.get(of, (None, None))[side],
                structures,
            )
            for side in (0, 1)
        ]
        pairs.append(_pair(draft, sides[0], sides[1], *written[of]))
    figures = _figures(pairs)
    curves = {test: curve_of(test, found, drafts, shares) for test in tests}
    areas = {f"area, {test}": areas for test, (_, areas, _) in curves.items() if areas}
    compared = differences(figures | areas)
    changed = [pair.answer_changed for pair in pairs if pair.answer_changed is not None]
    return Chains(
        base=base.name,
        before=change.before.name if change.before else None,
        after=change.after.name,
        effect=change.effect,
        temperature=temperature,
        seeds=tuple(seeds),
        problems=tuple(problems),
        pairs=tuple(pairs),
        figures=compared,
        curves=tuple(
            Curve(test, points, compared[f"area, {test}"], count)
            for test, (points, _, count) in curves.items()
            if points
        ),
        answers_changed=sum(changed) / len(changed) if changed else None,
    )


def _check(
    problems: Sequence[Problem],
    seeds: Sequence[int],
    temperature: float,
    max_new_tokens: int,
    tests: Sequence[str],
    shares: Sequence[float],
) -> None:
    if not problems:
        raise InputError("There are no problems", "Give one or more")
    if len({problem.id for problem in problems}) < len(problems):
        raise InputError("Two problems have one id", "Draw them with different seeds")
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"The seeds are {list(seeds)}", "Give one or more, each once")
    if not 0 <= temperature <= 5:
        raise InputError(
            f"The temperature is {temperature:g}", "It is a number from 0 (greedy) to 5"
        )
    if temperature == 0 and len(seeds) > 1:
        raise InputError("Temperature 0 draws nothing, so all seeds think alike", "Give one seed")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}", "Let one token or more be written")
    for test in tests:
        if test not in TESTS:
            raise InputError(f"There is no test '{test}'", did_you_mean(test, TESTS))
    if not all(0 <= share <= 1 for share in shares):
        raise InputError(f"The shares are {list(shares)}", "They are numbers from 0 to 1")


def _golds(
    writer: Writer, asking: Asking, drafts: Sequence[Draft]
) -> dict[int, tuple[tuple[float, float], tuple[float, float]]]:
    """Return the right answer's log-probability by draft and side: alone, and after the chain."""
    known = {of: draft for of, draft in enumerate(drafts) if draft.problem.gold is not None}
    texts = []
    for draft in known.values():
        for chains in (("", ""), draft.chains):
            texts.append((*asking.prompts(draft, chains), asking.gold(draft)))
    likely = writer.likelihoods(texts, what="Reading the right answers")
    by_two = zip(likely[::2], likely[1::2], strict=True)
    return {
        of: ((alone[0], given[0]), (alone[1], given[1]))
        for of, (alone, given) in zip(known, by_two, strict=True)
    }


def _chain(
    problem: Problem,
    text: str,
    ids: Sequence[int],
    ended: bool,
    answer: str | None,
    gold: tuple[float, float] | None,
    structures: Sequence[Structure],
) -> Chain:
    said = parted(text)
    return Chain(
        text=said.chain,
        tokens=len(ids),
        ended=ended,
        stated=read(said.answer, problem),
        answer=answer,
        right=None if problem.gold is None else answer == problem.gold,
        shown=shown_in(said.chain, problem.language, structures),
        gold_alone=gold[0] if gold else None,
        gold_with_chain=gold[1] if gold else None,
    )


def _pair(
    draft: Draft, before: Chain, after: Chain, old: Sequence[int], new: Sequence[int]
) -> Pair:
    same = next(
        (n for n, (one, other) in enumerate(zip(old, new, strict=False)) if one != other),
        min(len(old), len(new)),
    )
    longest = max(len(old), len(new))
    known = before.answer is not None and after.answer is not None
    return Pair(
        problem=draft.problem.id,
        seed=draft.seed,
        before=before,
        after=after,
        parts_at=same if same < longest else None,
        common=same / longest if longest else 1.0,
        answer_changed=before.answer != after.answer if known else None,
    )


def _figures(pairs: Sequence[Pair]) -> Figures:
    """Return every figure of single chains as pairs of means, one pair a problem."""
    measures: dict[str, Callable[[Chain], float | None]] = {
        "tokens": lambda chain: float(chain.tokens),
        "sentences": lambda chain: float(len(sentences(chain.text))),
        "ended": lambda chain: float(chain.ended),
        "answer stated": lambda chain: float(chain.stated is not None),
        "answer right": lambda chain: None if chain.right is None else float(chain.right),
        "right answer alone": lambda chain: chain.gold_alone,
        "right answer after the chain": lambda chain: chain.gold_with_chain,
        "right answer gained by the chain": _gained,
    }
    for name in dict.fromkeys(name for pair in pairs for name in pair.before.shown):
        measures[f"{name}, whole"] = _whole(name)
        measures[f"{name}, signs in 100 words"] = _signs(name)
    return {name: _by_problem(pairs, measure) for name, measure in measures.items()}


def _gained(chain: Chain) -> float | None:
    if chain.gold_alone is None or chain.gold_with_chain is None:
        return None
    return chain.gold_with_chain - chain.gold_alone


def _whole(name: str) -> Callable[[Chain], float | None]:
    return lambda chain: float(chain.shown[name].whole) if name in chain.shown else None


def _signs(name: str) -> Callable[[Chain], float | None]:
    def signs(chain: Chain) -> float | None:
        if name not in chain.shown:
            return None
        return 100 * chain.shown[name].signs / max(1, len(chain.text.split()))

    return signs


def _by_problem(pairs: Sequence[Pair], measure: Callable[[Chain], float | None]) -> Paired:
    values: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for pair in pairs:
        before, after = measure(pair.before), measure(pair.after)
        if before is not None and after is not None:
            values[pair.problem].append((before, after))
    return means(values)
