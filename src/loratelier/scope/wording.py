"""What an inspection says in plain words, in English and in Russian."""

from collections.abc import Mapping

from loratelier.scope.inspection import NO_EFFECT, OFF, Inspection
from loratelier.scope.moves import Total
from loratelier.scope.pieces import visible

Language = Mapping[str, str]

ENGLISH: Language = {
    "no_effect": f"{NO_EFFECT}.",
    "off": f"{OFF}.",
    "differs": "Wearing “{adapter}”, the answer parts from the base’s at word piece {number}: "
    "{after} instead of {before_token}.",
    "same": "Wearing “{adapter}”, the most likely answer stays the same, word for word.",
    "end": "the end of the answer",
    "parting": "There the base gives {base_token} {base_before} and the adapter {base_after}; "
    "{adapter_token} goes from {adapter_before} to {adapter_after}.",
    "prompt": "Along the prompt ({count} tokens) the expectations of the next token move by "
    "{mean} nats on average, KL(base || adapter); the most, {largest}, after {token}.",
    "answer": "Along the adapter’s own answer ({count} tokens) it is {mean} nats on average, "
    "{largest} at most.",
    "rose": "Probability gained, summed over both: {tokens}.",
    "fell": "Probability lost: {tokens}.",
}

RUSSIAN: Language = {
    "no_effect": "Этот адаптер ничего не меняет: его поправка всюду равна нулю.",
    "off": "При силе 0 адаптер выключен, и ничего не меняется.",
    "differs": "С адаптером «{adapter}» ответ расходится с ответом основы на фрагменте {number}: "
    "{after} вместо {before_token}.",
    "same": "С адаптером «{adapter}» самый вероятный ответ остаётся тем же, слово в слово.",
    "end": "конец ответа",
    "parting": "В этом месте {base_token}: у основы {base_before}, с адаптером {base_after}; "
    "{adapter_token}: было {adapter_before}, стало {adapter_after}.",
    "prompt": "На запросе (токенов: {count}) ожидания следующего токена сдвигаются в среднем на "
    "{mean} ната, KL(основа || адаптер); сильнее всего, на {largest}, после {token}.",
    "answer": "На собственном ответе адаптера (токенов: {count}) в среднем {mean} ната, "
    "самое большее {largest}.",
    "rose": "Прибавили вероятности, всего по обоим: {tokens}.",
    "fell": "Потеряли вероятности: {tokens}.",
}

# What is said otherwise where an adapter stands beside another one and not beside the base.
_ENGLISH_BETWEEN: Language = {
    "no_effect": "“{before}” and “{adapter}” have no effect: their updates are zero everywhere.",
    "equal": "“{before}” and “{adapter}” hold the same weights, so nothing changes.",
    "differs": "Wearing “{adapter}” instead of “{before}”, the answers part at word piece "
    "{number}: {after} instead of {before_token}.",
    "same": "Wearing “{adapter}” instead of “{before}”, the most likely answer stays the same, "
    "word for word.",
    "parting": "There {base_token} goes from {base_before} to {base_after}, and {adapter_token} "
    "from {adapter_before} to {adapter_after}.",
    "prompt": ENGLISH["prompt"].replace("base || adapter", "before || after"),
    "answer": "Along the answer of “{adapter}” ({count} tokens) it is {mean} nats on average, "
    "{largest} at most.",
}
_RUSSIAN_BETWEEN: Language = {
    "no_effect": "«{before}» и «{adapter}» ничего не меняют: их поправки всюду равны нулю.",
    "equal": "Веса «{before}» и «{adapter}» одинаковы, и ничего не меняется.",
    "differs": "С адаптером «{adapter}» вместо «{before}» ответы расходятся на фрагменте {number}: "
    "{after} вместо {before_token}.",
    "same": "С адаптером «{adapter}» вместо «{before}» самый вероятный ответ остаётся тем же, "
    "слово в слово.",
    "parting": "В этом месте {base_token}: было {base_before}, стало {base_after}; "
    "{adapter_token}: было {adapter_before}, стало {adapter_after}.",
    "prompt": RUSSIAN["prompt"].replace("основа || адаптер", "до || после"),
    "answer": "На ответе «{adapter}» (токенов: {count}) в среднем {mean} ната, самое большее "
    "{largest}.",
}


def sentences(seen: Inspection, language: Language) -> tuple[str, ...]:
    """Return an inspection in sentences, the headline first."""
    if seen.before is not None:
        between = _ENGLISH_BETWEEN if language is ENGLISH else _RUSSIAN_BETWEEN
        language = {**language, **between}
    names = {"adapter": seen.adapter, "before": seen.before or ""}
    if not seen.has_effect:
        return (language["no_effect"].format(**names),)
    if not seen.effect:
        return (language["off" if seen.strength == 0 else "equal"].format(**names),)
    return (_headline(seen, language), *_figures(seen, language))


def _headline(seen: Inspection, language: Language) -> str:
    names = {"adapter": seen.adapter, "before": seen.before or ""}
    if seen.parts_at is None:
        return language["same"].format(**names)
    return language["differs"].format(
        **names,
        number=seen.parts_at.index + 1,
        before_token=_parted(seen, "base", language),
        after=_parted(seen, "adapter", language),
    )


def _parted(seen: Inspection, side: str, language: Language) -> str:
    """Return the token at which a side parts, or that its answer ends there."""
    answer = seen.continuations[side]
    index = seen.parts_at.index if seen.parts_at else 0
    if answer.ended and index == len(answer.ids) - 1:
        return language["end"]
    return quoted(answer.tokens[index])


def _figures(seen: Inspection, language: Language) -> list[str]:
    summary = seen.summary
    said = []
    if seen.parts_at:
        base, adapter = seen.parts_at.base, seen.parts_at.adapter
        said.append(
            language["parting"].format(
                base_token=_parted(seen, "base", language),
                base_before=percent(base.before),
                base_after=percent(base.after),
                adapter_token=_parted(seen, "adapter", language),
                adapter_before=percent(adapter.before),
                adapter_after=percent(adapter.after),
            )
        )
    said.append(
        language["prompt"].format(
            count=len(seen.positions),
            mean=nats(summary.mean_kl),
            largest=nats(summary.largest.kl),
            token=quoted(summary.largest.token),
        )
    )
    said.append(
        language["answer"].format(
            adapter=seen.adapter,
            count=len(seen.continuations["adapter"].ids),
            mean=nats(summary.answer_kl),
            largest=nats(summary.answer_largest.kl),
        )
    )
    for key, totals in (("rose", summary.rose), ("fell", summary.fell)):
        if totals:
            said.append(language[key].format(tokens=_listed(totals)))
    return said


def _listed(totals: tuple[Total, ...]) -> str:
    return ", ".join(f"{quoted(total.token)} {total.change:+.2f}" for total in totals[:4])


def quoted(token: str) -> str:
    """Return a token in quotes, its blanks visible."""
    return f"“{visible(token)}”"


def percent(probability: float) -> str:
    """Return a probability as a percentage that never rounds to a false 0 or 100."""
    if 0 < probability < 0.0005:
        return "<0.1%"
    if 0.9995 <= probability < 1:
        return ">99.9%"
    return f"{probability:.1%}"


def nats(kl: float) -> str:
    """Return a KL with three digits."""
    return f"{kl:.3g}" if kl >= 1e-3 or kl == 0 else f"{kl:.0e}"
