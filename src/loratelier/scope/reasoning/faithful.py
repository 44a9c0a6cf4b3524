"""Whether an answer rests on its chain: the chain is cut, falsified, reworded or filled.

After Lanham et al. (arXiv:2307.13702). Each test changes the chain and asks for the answer again;
the share of answers that stay what they are after the whole chain, against the share of the chain,
is a curve. Where a model needs its chain the answer moves, and the area over the curve is large.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loratelier.base import Base
from loratelier.scope.prompt import words
from loratelier.scope.reasoning.answers import cue, parted, read
from loratelier.scope.reasoning.chains import Test
from loratelier.scope.reasoning.problems import Problem
from loratelier.scope.reasoning.sentences import make_mistake, part, reworded, sentences
from loratelier.scope.reasoning.writing import Ids, Job, Writer

ANSWER_TOKENS = 12
_FILLER = " ..."
Sides = tuple[str, str]
Answers = tuple[str | None, str | None]


@dataclass(frozen=True)
class Draft:
    """A problem with what both sides wrote of it: their chains as text."""

    problem: Problem
    seed: int
    prompt: Ids
    chains: Sides

    @property
    def stream(self) -> str:
        """What the random numbers of both sides come from."""
        return f"{self.seed}/{self.problem.id}"


@dataclass(frozen=True)
class _Probe:
    """A changed chain on both sides, after which the answer is asked for."""

    of: int
    test: Test
    share: float
    given: tuple[Ids, Ids]


Found = Mapping[tuple[Test, float], Mapping[int, Answers]]


class Asking:
    """Asks for answers after chains on both sides.

    Args:
        base: whose tokens are used.
        writer: writes them.
        temperature: of what a model writes on after a mistake.
        limit: how many tokens a chain may have.
    """

    def __init__(self, base: Base, writer: Writer, temperature: float, limit: int) -> None:
        self._base, self._writer = base, writer
        self._temperature, self._limit = temperature, limit

    def answers(
        self, drafts: Sequence[Draft], tests: Sequence[Test], shares: Sequence[float]
    ) -> Found:
        """Return both sides' answers by test, share and the draft's number.

        ``("early", 1.0)``, the answer after the whole chain, is there for every draft; the rest
        only where both sides wrote a chain, and a mistake where both have a sentence that can be
        made wrong.
        """
        probes = [
            _Probe(of, "early", 1.0, self.prompts(d, d.chains)) for of, d in enumerate(drafts)
        ]
        thought = {of: d for of, d in enumerate(drafts) if all(map(str.strip, d.chains))}
        for test in tests:
            for share in shares:
                probes += self._probes(thought, test, share)
        # The whole chain is there once, whatever was asked for.
        return self._ask(drafts, list({(p.of, p.test, p.share): p for p in probes}.values()))

    def prompts(self, draft: Draft, chains: Sides) -> tuple[Ids, Ids]:
        """Return what is read on both sides before the answer to a chain."""
        before, after = (
            (*draft.prompt, *self._tokens(cue(chain, draft.problem.language))) for chain in chains
        )
        return before, after

    def gold(self, draft: Draft) -> Ids:
        """Return the right answer as it stands after the cue."""
        return self._tokens(f" {draft.problem.gold}")

    def _probes(self, drafts: Mapping[int, Draft], test: Test, share: float) -> list[_Probe]:
        if test == "mistake":
            # A mistake at the end of the chain is none: there is nothing left to go wrong.
            return self._mistakes(drafts, share) if share < 1 else []
        if test == "filler":
            return [_Probe(of, test, share, self._filled(d, share)) for of, d in drafts.items()]
        change = _cut if test == "early" else _reworded
        found = []
        for of, draft in drafts.items():
            before, after = (change(chain, share, draft.problem) for chain in draft.chains)
            found.append(_Probe(of, test, share, self.prompts(draft, (before, after))))
        return found

    def _filled(self, draft: Draft, share: float) -> tuple[Ids, Ids]:
        """Return prompts in which dots of the chain's length stand instead of it."""
        filler, language = self._tokens(_FILLER), draft.problem.language
        given = []
        for chain in draft.chains:
            dots = _repeated(filler, round(share * len(self._tokens(chain))))
            cued = self._tokens("\n" * bool(dots) + cue("", language))
            given.append((*draft.prompt, *dots, *cued))
        return given[0], given[1]

    def _mistakes(self, drafts: Mapping[int, Draft], share: float) -> list[_Probe]:
        """Falsify a sentence on both sides, let each go on from there, and take what came out."""
        wrong = {of: _falsified(draft, share) for of, draft in drafts.items()}
        begun = {of: texts for of, texts in wrong.items() if texts is not None}
        jobs = []
        for of, texts in begun.items():
            before, after = ((*drafts[of].prompt, *self._tokens(text)) for text in texts)
            jobs.append(Job(before, after, f"{drafts[of].stream}/mistake/{share}"))
        gone_on = self._writer.write(
            jobs, limit=self._limit, temperature=self._temperature, what="Going on from mistakes"
        )
        probes = []
        for (of, texts), written in zip(begun.items(), gone_on, strict=True):
            old, new = (
                parted(text + words(self._base, ids)).chain
                for text, ids in zip(texts, written, strict=True)
            )
            probes.append(_Probe(of, "mistake", share, self.prompts(drafts[of], (old, new))))
        return probes

    def _ask(self, drafts: Sequence[Draft], probes: Sequence[_Probe]) -> Found:
        jobs = [Job(*probe.given, "") for probe in probes]
        said = self._writer.write(
            jobs, limit=ANSWER_TOKENS, temperature=0.0, what="Asking for the answers"
        )
        found: dict[tuple[Test, float], dict[int, Answers]] = {}
        for probe, sides in zip(probes, said, strict=True):
            problem = drafts[probe.of].problem
            before, after = (read(words(self._base, ids), problem) for ids in sides)
            found.setdefault((probe.test, probe.share), {})[probe.of] = (before, after)
        return found

    def _tokens(self, text: str) -> Ids:
        return tuple(self._base.tokenizer(text, add_special_tokens=False)["input_ids"])


def _cut(chain: str, share: float, _: Problem) -> str:
    pieces = sentences(chain)
    return "".join(pieces[: part(pieces, share)])


def _reworded(chain: str, share: float, problem: Problem) -> str:
    pieces = sentences(chain)
    count = part(pieces, share)
    new = [reworded(piece, problem.language) for piece in pieces[:count]]
    return "".join((*new, *pieces[count:]))


def _falsified(draft: Draft, share: float) -> Sides | None:
    """Return both chains up to a sentence that is wrong now; None where a side has none such."""
    found = []
    for chain in draft.chains:
        pieces = sentences(chain)
        made = make_mistake(pieces, share, draft.problem.language, f"{draft.stream}/{share}")
        if made is None:
            return None
        at, wrong = made
        found.append("".join((*pieces[:at], wrong)))
    return found[0], found[1]


def _repeated(filler: Ids, count: int) -> Ids:
    return (filler * count)[:count]
