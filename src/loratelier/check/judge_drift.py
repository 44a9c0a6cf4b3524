"""From measured drift to findings."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from loratelier.check.ability import Ability, Tried
from loratelier.check.drift import GeneralText, Moved
from loratelier.check.finding import Finding, beyond, within_noise
from loratelier.check.say import LESS, NOISE, REPLAY, UNJUDGED, accuracy, said, share, span
from loratelier.check.tasks import name_of
from loratelier.check.thresholds import DriftLimits

_P = 0.05


def judge_general(one: GeneralText, limits: DriftLimits, *, judged: bool) -> Finding:
    """Judge bits per byte on plain prose."""
    noise = within_noise(one.interval)
    failed = judged and beyond(one.rise, limits.general_text, 1) and not noise
    tail = NOISE if noise else ("", "")
    tail = tail if judged else (tail[0] + UNJUDGED[0], tail[1] + UNJUDGED[1])
    return Finding(
        name=f"general_text.{one.language}",
        title=said(
            "General text ({language}), bits per byte",
            "Обычный текст ({language}), бит на байт",
            language=one.language,
        ),
        figure=one.rise,
        interval=one.interval,
        threshold=limits.general_text if judged else None,
        worse=1,
        passed=not failed,
        noise=noise,
        sentence=said(
            "General text ({language}) costs {rise} bits per byte {span}: {before} before, "
            "{after} after, {documents} documents." + tail[0],
            "Обычный текст ({language}) стоит {rise} бит на байт {span}: {before} до, {after} "
            "после, документов: {documents}." + tail[1],
            language=one.language,
            rise=share(one.rise),
            span=span(one.interval),
            before=f"{one.before:.3f}",
            after=f"{one.after:.3f}",
            documents=str(one.documents),
        ),
        remedy=REPLAY if failed else None,
        detail=asdict(one),
    )


def judge_moved(general: Moved, unrelated: Moved, limits: DriftLimits) -> Iterator[Finding]:
    """Judge the expectations under the chat template where nothing was asked for."""
    yield _kl(
        "general_kl", general, limits.general_kl, "general prose in the chat template",
        "обычной прозе в шаблоне чата",
    )  # fmt: skip
    yield _kl(
        "unrelated_kl", unrelated, limits.unrelated_kl, "the base's answers to unrelated requests",
        "ответах основы на посторонние запросы",
    )  # fmt: skip
    noise = within_noise(unrelated.top_1_interval, 1.0)
    failed = beyond(unrelated.top_1, limits.top_1, -1) and not noise
    yield Finding(
        name="top_1",
        title=said("Same likeliest token", "Тот же вероятнейший токен"),
        figure=unrelated.top_1,
        interval=unrelated.top_1_interval,
        threshold=limits.top_1,
        worse=-1,
        passed=not failed,
        noise=noise,
        sentence=said(
            "On the base's answers to unrelated requests both find the same token likeliest at "
            "{share} of the places {span}.",
            "На ответах основы на посторонние запросы обе считают вероятнейшим один и тот же "
            "токен в {share} мест {span}.",
            share=f"{unrelated.top_1:.1%}",
            span=span(unrelated.top_1_interval, "{:.1%}"),
        ),
        remedy=LESS if failed else None,
        detail=asdict(unrelated),
    )


def _kl(name: str, one: Moved, limit: float, where: str, where_ru: str) -> Finding:
    noise = within_noise(one.kl_interval)
    failed = beyond(one.kl, limit, 1) and not noise
    return Finding(
        name=name,
        title=said("KL, " + where, "KL на " + where_ru),
        figure=one.kl,
        interval=one.kl_interval,
        threshold=limit,
        worse=1,
        passed=not failed,
        noise=noise,
        sentence=said(
            "On {where} the expectations moved by {kl} nats a token {span} ({texts} texts).",
            "На {where_ru} ожидания сдвинулись на {kl} нат на токен {span} (текстов: {texts}).",
            where=where,
            where_ru=where_ru,
            kl=f"{one.kl:.3g}",
            span=span(one.kl_interval, "{:.3g}"),
            texts=str(one.texts),
        ),
        remedy=LESS if failed else None,
        detail=asdict(one),
    )


def judge_own(own: Moved, unrelated: Moved) -> Finding:
    """Say what was gained on the adapter's own rows; a change is wanted there."""
    noise = within_noise(own.gain_interval)
    apart = unrelated.kl / own.kl if own.kl else 0.0
    return Finding(
        name="own_rows",
        title=said("Gain on its own rows, nats a token", "Выигрыш на своих строках, нат на токен"),
        figure=own.gain,
        interval=own.gain_interval,
        threshold=None,
        worse=-1,
        passed=True,
        noise=noise,
        sentence=said(
            "On its own rows the loss went from {before} to {after} nats a token, and the "
            "expectations moved by {kl}; on unrelated requests by {apart} of that."
            + (NOISE[0] if noise else ""),
            "На своих строках потеря изменилась с {before} до {after} нат на токен, а ожидания "
            "сдвинулись на {kl}; на посторонних запросах на {apart} от этого."
            + (NOISE[1] if noise else ""),
            before=f"{own.before:.3f}",
            after=f"{own.after:.3f}",
            kl=f"{own.kl:.3g}",
            apart=f"{apart:.0%}",
        ),
        detail=asdict(own),
    )


def judge_ability(ability: Ability, limits: DriftLimits) -> Iterator[Finding]:
    """Judge the tasks: all together, then each; name those that could not be counted."""
    if ability.before and ability.after and ability.interval and ability.p is not None:
        noise = ability.p >= _P
        change = ability.change or 0.0
        failed = beyond(change, -limits.tasks, -1) and not noise
        yield Finding(
            name="tasks",
            title=said("Tasks with known answers", "Задачи с известным ответом"),
            figure=change,
            interval=ability.interval,
            threshold=-limits.tasks,
            worse=-1,
            passed=not failed,
            noise=noise,
            sentence=said(
                "Over {items} items of {count} tasks: {before} right before, {after} after; "
                "{lost} lost, {won} won (McNemar p = {p})." + (NOISE[0] if noise else ""),
                "На {items} заданиях (задач: {count}) верно {before} до и {after} после; потеряно "
                "{lost}, найдено {won} (p Макнемара = {p})." + (NOISE[1] if noise else ""),
                items=str(ability.items),
                count=str(len(ability.counted)),
                before=accuracy(ability.before),
                after=accuracy(ability.after),
                lost=str(ability.lost),
                won=str(ability.won),
                p=f"{ability.p:.2g}",
            ),
            remedy=REPLAY if failed else None,
            detail=asdict(ability),
        )
    for one in ability.counted:
        yield _task(one, limits, len(ability.counted))
    out = [one for one in ability.tried if one.headroom != "counted"]
    if out:
        yield _screened(out)


def _task(one: Tried, limits: DriftLimits, tasks: int) -> Finding:
    assert one.after and one.p is not None and one.change is not None
    # Of many tasks one may fall by chance: Bonferroni's share of the error for each.
    noise = one.p >= _P / tasks
    failed = beyond(one.change, -limits.one_task, -1) and not noise
    english, russian = name_of(one.task)
    return Finding(
        name=f"task.{one.task}",
        title={"en": english, "ru": russian},
        figure=one.change,
        interval=one.interval,
        threshold=-limits.one_task,
        worse=-1,
        passed=not failed,
        noise=noise,
        sentence=said(
            "{name}: {before} right before, {after} after, guessing gives {chance}; {lost} lost, "
            "{won} won (p = {p})." + (NOISE[0] if noise else ""),
            "{name_ru}: верно {before} до, {after} после, наугад {chance}; потеряно {lost}, "
            "найдено {won} (p = {p})." + (NOISE[1] if noise else ""),
            name=english.capitalize(),
            name_ru=russian.capitalize(),
            before=accuracy(one.before),
            after=accuracy(one.after),
            chance=f"{one.chance:.0%}",
            lost=str(one.lost),
            won=str(one.won),
            p=f"{one.p:.2g}",
        ),
        remedy=REPLAY if failed else None,
    )


def _screened(out: Sequence[Tried]) -> Finding:
    def listed(language: int) -> str:
        why = {"at chance": ("at chance", "наугад"), "at ceiling": ("at ceiling", "у потолка")}
        return ", ".join(
            f"{name_of(one.task)[language]} {accuracy(one.before)} ({why[one.headroom][language]})"
            for one in out
        )

    return Finding(
        name="screened",
        title=said("Tasks that say nothing of this base", "Задачи, которые ничего не скажут"),
        figure=float(len(out)),
        interval=None,
        threshold=None,
        worse=0,
        passed=True,
        noise=False,
        sentence=said(
            "Not counted, because the base has no headroom there: {tasks}.",
            "Не считались, потому что у основы там нет запаса: {tasks_ru}.",
            tasks=listed(0),
            tasks_ru=listed(1),
        ),
    )
