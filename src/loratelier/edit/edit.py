"""Setting a next-token distribution by hand: from what is asked to an adapter that does it."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.base import Base
from loratelier.edit.ground import Ground, Ids, Locality, lay, locality
from loratelier.edit.neighbours import neighbour_ids
from loratelier.edit.report import Edit, Goal, Paraphrase
from loratelier.edit.solve import Found, Limits, Task, candidates, solve
from loratelier.edit.stack import alone, require_plain, stack
from loratelier.edit.wishes import Request, Said, chances, read_prompt, request, wishes
from loratelier.kit.errors import InputError
from loratelier.scope.prompt import Messages
from loratelier.scope.reading import Text, logits_of

Prompt = str | Messages
_OLD, _NEW = "old", "new"


def set_distribution(
    base: Base,
    adapter: Adapter | None,
    prompt: Prompt,
    asked: Mapping[Said, float],
    *,
    more: Sequence[tuple[Prompt, Mapping[Said, float]]] = (),
    chat: bool = False,
    paraphrases: Sequence[Prompt] = (),
    spread: bool | None = None,
    neighbours: Sequence[Prompt] = (),
    own: Sequence[str] = (),
    layers: Sequence[int] | None = None,
    budget: float = 0.01,
    norm: float = 0.25,
    within: float = 0.02,
    name: str = "edited",
) -> Edit:
    """Make an adapter under which strings have the probabilities that are asked for.

    One layer gets one rank for every place that is set: a prompt, each wished paraphrase of it, and
    each further token of a string of several. The input side is in closed form
    (:mod:`loratelier.edit.keys`), the output side is found by L-BFGS on KL(target || model), the
    target being the present distribution with the asked ones set and the rest in proportion. Where
    that costs more than it may, it is finished under the limits. A few layers are tried.

    Args:
        base: the base.
        adapter: a plain LoRA adapter whose ranks stay, as they are, under the edit's; None to edit
            the base.
        prompt: a text, after which the very next token is meant; or messages, which go through the
            chat template.
        asked: strings, or numbers of tokens, with probabilities in (0, 1). What a string of several
            tokens means is said in :mod:`loratelier.edit.wishes`.
        more: further prompts, each with what is asked after it.
        chat: put prompts that are texts through the chat template too.
        paraphrases: other wordings of ``prompt``, reported on in any case.
        spread: True when the edit should hold after these as well, False when it should leave them
            alone, None when they are only to be reported.
        neighbours: prompts to be left alone, beside those that are made of the prompt's words.
        own: texts of the person's own, to be left alone.
        layers: the blocks to try; untold, five from the middle to shortly below the top.
        budget: KL(before || after) that the edit may cost, in nats, on average over the kinds of
            text: general prose, neighbours, the prompts' other places, own texts. It is held twice:
            on what is optimised on, and on what the report is made of.
        norm: how large the edit may be, as a share of the weight that it changes (Frobenius).
        within: how far from what was asked still counts as reached.
        name: of the result.

    Returns:
        The edit. When the wish cannot be met within the limits, ``met`` is false, ``why`` says what
        stands in the way, and the adapter is the most of it that they allow.

    Raises:
        InputError: an empty prompt or wish, an unknown token, probabilities or limits that make no
            sense, or an adapter that is not plain LoRA for this base.
    """
    started = time.perf_counter()
    limits = _limits(budget, norm, within)
    prompts = [(prompt, asked), *more]
    if spread:
        prompts += [(each, asked) for each in paraphrases]
    requests = [request(base, each, wanted, chat=chat) for each, wanted in prompts]
    _require_distinct(requests)
    near, texts = _left_alone(base, prompts, neighbours, own, chat)
    if spread is False:
        near.append([read_prompt(base, each, chat=chat)[1] for each in paraphrases])
    look = _Look(base, adapter)
    with look.old():
        before = [chances(base, each.ids, list(each.asked)) for each in requests]
        places = [wish for each in requests for wish in wishes(base, each)]
        ground, judged = lay(base, [wish.ids for wish in places], near, texts)
        work = Task(base, places, ground, candidates(base, layers), look.digest)
        found = solve(work, limits)
        old = _logits(base, judged)
    pairs = {found.site: (found.down, found.up)}
    said = [_said(each) for each in requests]
    edit = alone(base, pairs, name, said)
    result = stack(adapter, [edit], name)
    with look.new(result):
        after = [chances(base, each.ids, list(each.asked)) for each in requests]
        moved = locality(judged, old, _logits(base, judged), found.spread)
    goals = tuple(
        Goal(each.prompt, each.said[own_], own_, b[own_], chance, a[own_])
        for each, b, a in zip(requests, before, after, strict=True)
        for own_, chance in each.asked.items()
    )
    why = _why(goals, moved, found, limits)
    return Edit(
        adapter=result,
        alone=edit,
        goals=goals,
        locality=moved,
        paraphrases=_paraphrases(look, requests[0], result, paraphrases, spread, chat),
        rank=len(found.down),
        norm=found.norm,
        site=found.site,
        seconds=time.perf_counter() - started,
        met=not why,
        why=why,
    )


class _Look:
    """The base in the adapter that is edited, and in the edited one."""

    def __init__(self, base: Base, adapter: Adapter | None) -> None:
        self.base = base
        self.digest = adapter.digest if adapter is not None else "base"
        self._adapter = adapter
        self._bank = AdapterBank(base.model)
        if adapter is not None:
            require_plain(adapter)
            adapter.require_fit(base)
            self._bank.add(_OLD, adapter)

    def old(self) -> AbstractContextManager[None]:
        return self._bank.activate(_OLD) if self._adapter is not None else nullcontext()

    def new(self, adapter: Adapter) -> AbstractContextManager[None]:
        self._bank.add(_NEW, adapter)
        return self._bank.activate(_NEW)


def _limits(budget: float, norm: float, within: float) -> Limits:
    for what, value in (("budget", budget), ("norm", norm), ("tolerance", within)):
        if not 0 < value < float("inf"):
            raise InputError(f"The {what} is {value!r}", "It is a number above 0")
    return Limits(budget=budget, norm=norm, within=within)


def _require_distinct(requests: Sequence[Request]) -> None:
    seen: set[Ids] = set()
    for each in requests:
        if each.ids in seen:
            raise InputError(f"The prompt '{each.prompt}' is there twice", "Ask for all at once")
        seen.add(each.ids)


def _left_alone(
    base: Base,
    prompts: Sequence[tuple[Prompt, object]],
    neighbours: Sequence[Prompt],
    own: Sequence[str],
    chat: bool,
) -> tuple[list[list[Ids]], list[Ids]]:
    edited = {read_prompt(base, prompt, chat=chat)[1] for prompt, _ in prompts}
    near = [neighbour_ids(base, prompt, chat=chat) for prompt, _ in prompts]
    if neighbours:
        near.append([read_prompt(base, each, chat=chat)[1] for each in neighbours])
    near = [[ids for ids in each if ids not in edited] for each in near]
    texts = [tuple(base.tokenizer(text)["input_ids"]) for text in own]
    return [each for each in near if each], [ids for ids in texts if ids]


@torch.no_grad()
def _logits(base: Base, ground: Ground) -> torch.Tensor:
    rows = logits_of(base.model, Text(ground.rows, 0))[0]
    at = torch.tensor(ground.places, device=rows.device)
    return rows[at[:, 0], at[:, 1]]


def _said(asked: Request) -> dict[str, object]:
    wanted = {asked.said[own]: chance for own, chance in asked.asked.items()}
    return {"prompt": asked.prompt, "set": wanted}


def _why(goals: Sequence[Goal], moved: Locality, found: Found, limits: Limits) -> str:
    """Say what stands in the way of an edit; nothing when it does what was asked."""
    farthest = max(goals, key=lambda goal: goal.miss)
    if farthest.miss > limits.within:
        held = (
            f"an average KL of {limits.budget:g} nats elsewhere and "
            f"{limits.norm:.0%} of the weight's norm"
        )
        return f"'{farthest.text}' cannot come to {farthest.asked:g} within {held}"
    if moved.mean > limits.budget:
        return (
            f"on text that was not optimised on it costs {moved.mean:.4f} nats on average, and "
            f"{limits.budget:g} are allowed"
        )
    if not found.within(limits):
        return "it costs more than is allowed"
    return ""


def _paraphrases(
    look: _Look,
    asked: Request,
    result: Adapter,
    given: Sequence[Prompt],
    spread: bool | None,
    chat: bool,
) -> tuple[Paraphrase, ...]:
    base, own = look.base, list(asked.asked)
    read = [read_prompt(base, each, chat=chat) for each in given]
    with look.old():
        before = [chances(base, ids, own) for _, ids in read]
    with look.new(result):
        after = [chances(base, ids, own) for _, ids in read]
    return tuple(
        Paraphrase(
            words,
            spread,
            {asked.said[each]: b[each] for each in own},
            {asked.said[each]: a[each] for each in own},
        )
        for (words, _), b, a in zip(read, before, after, strict=True)
    )
