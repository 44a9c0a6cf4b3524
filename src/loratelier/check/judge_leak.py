"""From leak and behaviour tests to findings."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from loratelier.check.behaviour import Outcome
from loratelier.check.finding import Finding, within_noise
from loratelier.check.leak import Lengths, Marked, Styled
from loratelier.check.say import MEND, NOISE, SIGNAL, accuracy, said, share, span
from loratelier.check.style import Style
from loratelier.check.thresholds import BehaviourLimits, LeakLimits

_MARKERS = {
    "markdown": ("Markdown", "разметкой Markdown"),
    "question": ("a question", "вопросом"),
    "first_person": ("the first person", "первым лицом"),
}


def judge_style(style: Style, seen: Styled | None, limits: LeakLimits) -> Finding:
    """Judge the style in answers to unrelated requests; without ``seen`` it was not measurable."""
    title = said("Its style where it was not asked", "Его стиль там, где не просили")
    if seen is None:
        return Finding(
            name="style",
            title=title,
            figure=None,
            interval=None,
            threshold=None,
            worse=1,
            passed=True,
            noise=True,
            sentence=said(
                "Nothing is said of the style: the classifier cannot tell its rows from the "
                "base's answers ({accuracy} right in cross-validation).",
                "О стиле не сказано ничего: классификатор не отличает его строк от ответов основы "
                "(верно {accuracy} при перекрёстной проверке).",
                accuracy=accuracy(style.accuracy),
            ),
        )
    noise = within_noise(seen.interval)
    failed = seen.change > limits.style and not noise
    return Finding(
        name="style",
        title=title,
        figure=seen.change,
        interval=seen.interval,
        threshold=limits.style,
        worse=1,
        passed=not failed,
        noise=noise,
        sentence=said(
            "On unrelated requests the classifier sees its style with probability {after}, "
            "without the adapter {before} ({change} {span}); it is right in {accuracy} of texts "
            "that it was not trained on." + (NOISE[0] if noise else ""),
            "На посторонних запросах классификатор видит его стиль с вероятностью {after}, без "
            "адаптера {before} ({change} {span}); на текстах, на которых его не обучали, он прав "
            "в {accuracy}." + (NOISE[1] if noise else ""),
            before=f"{seen.before:.2f}",
            after=f"{seen.after:.2f}",
            change=f"{seen.change:+.2f}",
            span=span(seen.interval, "{:+.2f}"),
            accuracy=accuracy(style.accuracy),
        ),
        remedy=SIGNAL if failed else None,
        detail=asdict(seen),
    )


def judge_answers(
    measured: Lengths, marked: Sequence[Marked], limits: LeakLimits
) -> Iterator[Finding]:
    """Judge length and markers of answers to unrelated requests."""
    noise = within_noise(measured.interval)
    failed = abs(measured.change) > limits.length and not noise
    yield Finding(
        name="length",
        title=said("Length of unrelated answers", "Длина посторонних ответов"),
        figure=measured.change,
        interval=measured.interval,
        threshold=limits.length,
        worse=0,
        passed=not failed,
        noise=noise,
        sentence=said(
            "Answers to unrelated requests changed in length by {change} {span}; the median went "
            "from {before} to {after} characters." + (NOISE[0] if noise else ""),
            "Ответы на посторонние запросы изменились в длине на {change} {span}; медиана была "
            "{before}, стала {after} знаков." + (NOISE[1] if noise else ""),
            change=share(measured.change),
            span=span(measured.interval),
            before=f"{measured.before:.0f}",
            after=f"{measured.after:.0f}",
        ),
        remedy=SIGNAL if failed else None,
        detail=asdict(measured),
    )
    for one in marked:
        yield _marker(one, limits)


def _marker(one: Marked, limits: LeakLimits) -> Finding:
    noise = within_noise(one.interval)
    failed = abs(one.change) > limits.markers and not noise
    english, russian = _MARKERS[one.marker]
    return Finding(
        name=f"marker.{one.marker}",
        title=said("Unrelated answers with {m}", "Посторонние ответы с {r}", m=english, r=russian),
        figure=one.change,
        interval=one.interval,
        threshold=limits.markers,
        worse=0,
        passed=not failed,
        noise=noise,
        sentence=said(
            "Of the answers to unrelated requests {before} had {marker} before, {after} after."
            + (NOISE[0] if noise else ""),
            "Из ответов на посторонние запросы с {marker_ru} были {before} до и {after} после."
            + (NOISE[1] if noise else ""),
            before=accuracy(one.before),
            after=accuracy(one.after),
            marker=english,
            marker_ru=russian,
        ),
        remedy=SIGNAL if failed else None,
        detail=asdict(one),
    )


def judge_behaviour(outcomes: Sequence[Outcome], limits: BehaviourLimits) -> Finding:
    """Judge the behaviour tests; the sentence names those that failed."""
    failed = [one for one in outcomes if not one.passed]
    passed = len(failed) <= limits.failed
    listed = "; ".join(f"'{one.name}': {', '.join(one.missed)}" for one in failed)
    return Finding(
        name="behaviour",
        title=said("Behaviour tests that failed", "Непройденные тесты поведения"),
        figure=float(len(failed)),
        interval=None,
        threshold=float(limits.failed),
        worse=1,
        passed=passed,
        noise=False,
        sentence=said(
            "{right} of {count} behaviour tests passed{listed}.",
            "Пройдено тестов поведения: {right} из {count}{listed}.",
            right=str(len(outcomes) - len(failed)),
            count=str(len(outcomes)),
            listed=f". {listed}" if failed else "",
        ),
        remedy=None if passed else MEND,
        detail={"tests": [asdict(one) | {"passed": one.passed} for one in outcomes]},
    )
