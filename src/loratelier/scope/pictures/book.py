"""The pictures of an inspection, each with one sentence that says what it shows here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from loratelier.base.outline import Outline, place_of
from loratelier.scope.attention_shift import AttentionShift
from loratelier.scope.attribute import Attribution
from loratelier.scope.inspection import Inspection
from loratelier.scope.lens_view import Lens
from loratelier.scope.pictures.heads import heads, looks
from loratelier.scope.pictures.lens import Said, lens
from loratelier.scope.pictures.svg import Both, Picture
from loratelier.scope.pictures.tower import by_place, tower
from loratelier.scope.pieces import visible
from loratelier.scope.weights import Weights

K = TypeVar("K", int, str)

# How many tokens a map of attention shows: the last ones of the text.
_SHOWN = 32
# How many positions the lens shows, for each side.
_LENS_SHOWN = 12
# Parts of a block that carry this much of a change together are named.
_MOST_OF_IT = 0.5


def pictures(seen: Inspection) -> tuple[Picture, ...]:
    """Draw everything that was looked at inside; nothing where nothing can change."""
    if not seen.effect:
        return ()
    drawn: list[Picture] = []
    if seen.weights is not None and seen.weights.sites:
        drawn.append(place(seen.weights, seen.outline))
    if seen.sites is not None:
        drawn.append(site_map(seen.sites, seen.outline))
    if seen.lens is not None:
        drawn.append(lens_map(seen.lens))
    if seen.attention is not None:
        drawn += attention(seen.attention)
    return tuple(drawn)


def place(weights: Weights, plan: Outline) -> Picture:
    """Draw where the adapter sits, and how large its update is there."""
    values = {site: each.relative for site, each in weights.sites.items()}
    first, most = max(values.items(), key=lambda pair: pair[1])
    blocks = sorted({found[0] for site in values if (found := place_of(site)) is not None})
    span = f"{blocks[0]}–{blocks[-1]}" if len(blocks) > 1 else ", ".join(map(str, blocks))
    return tower(
        plan,
        values,
        name="place",
        title=("Where the adapter sits", "Где сидит адаптер"),
        says=(
            f"The model as a plan: text goes through {plan.blocks} layers from left to right, and "
            f"each box is one of its matrices. The adapter changes {len(values)} of them, in "
            f"layers {span}; the darker, the larger the change for its matrix. The largest is "
            f"{most:.1%} of {first}.",
            f"Модель как план: текст проходит слева направо {plan.blocks} слоёв, клетка — одна из "
            f"её матриц. Адаптер меняет {len(values)} из них, в слоях {span}; чем темнее, тем "
            f"сильнее для своей матрицы. Сильнее всего, на {most:.1%}, изменена {first}.",
        ),
        value=("Norm of the change / of the matrix", "Норма изменения / матрицы"),
        told=lambda v: f"{v:.2%}",
    )


def site_map(sites: Attribution, plan: Outline) -> Picture:
    """Draw each site's share of the change."""
    parts = sites.relative
    values = parts if parts is not None else sites.shares
    return tower(
        plan,
        values,
        name="sites",
        title=("Which sites did it", "Какие места это сделали"),
        says=_site_words(sites, plan),
        value=("Share of the change", "Доля изменения") if parts else ("Change", "Изменение"),
        told=(lambda v: f"{v:+.1%}") if parts else (lambda v: f"{v:+.4f} {sites.unit}"),
    )


def _site_words(sites: Attribution, plan: Outline) -> Both:
    """Say where most of a change came from: modules, and layers."""
    if sites.relative is None:
        return (
            f"Where the adapter works: the {sites.target} hardly changes here "
            f"({sites.total:+.4f} {sites.unit}), so the shares are in {sites.unit}; warm raises "
            "it, cold lowers it.",
            f"Где работает адаптер: величина «{sites.target}» здесь почти не меняется "
            f"({sites.total:+.4f}), поэтому доли даны в её единицах; тёплое повышает, холодное "
            "понижает.",
        )
    placed = by_place(sites.relative)
    by_module = _summed((module, value) for (_, module), value in placed.items())
    names = dict(zip(plan.modules, plan.labels, strict=True))
    first = _enough(by_module, _MOST_OF_IT)
    modules = ", ".join(f"{names.get(module, module)} {by_module[module]:.0%}" for module in first)
    by_layer = _summed((layer, value) for (layer, _), value in placed.items())
    layers = _enough(by_layer, _MOST_OF_IT)
    told = ", ".join(str(layer) for layer in sorted(layers))
    change = f"{sites.value_before:+.2f} → {sites.value_after:+.2f}"
    return (
        f"The adapter’s sites moved one number, the {sites.target} ({change} {sites.unit}): warm "
        f"places pushed it there, cold ones held it back. Half of it came from {modules}; by "
        f"layer, from {told}.",
        f"Места адаптера сдвинули одно число, «{sites.target}» ({change}): тёплые толкали туда, "
        f"холодные удерживали. Половину дали {modules}; по слоям — {told}.",
    )


def _summed(values: Iterable[tuple[K, float]]) -> dict[K, float]:
    found: dict[K, float] = {}
    for key, value in values:
        found[key] = found.get(key, 0.0) + value
    return found


def _enough(values: Mapping[K, float], share: float) -> list[K]:
    """Return the largest values' keys, until they reach a share of the sum of all."""
    total, reached = sum(values.values()), 0.0
    found: list[K] = []
    for key in sorted(values, key=lambda key: -values[key]):
        found.append(key)
        reached += values[key]
        if reached >= share * total:
            break
    return found


def lens_map(seen: Lens) -> Picture:
    """Draw what each layer would say after the last positions."""
    first = max(0, len(seen.positions) - _LENS_SHOWN)
    before, after = (
        [
            [Said(visible(token), p) for token, p in zip(tokens, sure, strict=True)]
            for tokens, sure in zip(
                side.tokens[first:], side.probability[first:].tolist(), strict=True
            )
        ]
        for side in (seen.before, seen.after)
    )
    decisions = seen.decisions[first:]
    last = decisions[-1]
    old, new = visible(last.token_before), visible(last.token_after)
    return lens(
        before,
        after,
        [visible(decision.token) for decision in decisions],
        [(decision.before, decision.after) for decision in decisions],
        title=("The lens: on the way to the next word", "Линза: на пути к следующему слову"),
        says=(
            f"If the model had to stop at a layer, it would say this; the frame marks where it "
            f"has made up its mind. At the end it says “{old}” before, decided at layer "
            f"{last.before} of {seen.depth}, and “{new}” after, decided at layer {last.after}.",
            f"Это модель сказала бы, остановись она на слое; рамка там, где она уже решила. В "
            f"конце она говорит «{old}» до (решено на слое {last.before} из {seen.depth}) и "
            f"«{new}» после (решено на слое {last.after}).",
        ),
    )


def attention(shift: AttentionShift) -> list[Picture]:
    """Draw how far each head moved, and where the one that moved most looks."""
    moved = shift.by_head
    row, head = divmod(int(moved.argmax()), moved.shape[1])
    layer = shift.layers[row]
    most = float(moved[row, head])
    drawn = [
        heads(
            moved.tolist(),
            title=("Attention: which heads look elsewhere", "Внимание: какие головы смотрят иначе"),
            says=(
                f"Each box is one head, a part that chooses which earlier words to look at. On "
                f"average {float(moved.mean()):.1%} of attention went to other words; most in head "
                f"{head} of layer {layer}, {most:.1%}.",
                f"Клетка — одна голова, часть модели, которая выбирает, на какие прежние слова "
                f"смотреть. В среднем {float(moved.mean()):.1%} внимания ушло к другим словам; "
                f"больше всего у головы {head} слоя {layer}, {most:.1%}.",
            ),
            value=("Share that moved", "Ушедшая доля"),
        )
    ]
    if shift.queries:
        drawn.append(_looks(shift, row, head))
    return drawn


def _looks(shift: AttentionShift, row: int, head: int) -> Picture:
    first = max(0, len(shift.tokens) - _SHOWN)
    rows = [n for n, query in enumerate(shift.queries) if query >= first]
    tokens = [visible(token) for token in shift.tokens]
    before, after = (
        side[row, head, rows][:, first:].tolist() for side in (shift.before, shift.after)
    )
    layer = shift.layers[row]
    gaze = _largest(before, after)
    at, to, was, now = gaze
    return looks(
        before,
        after,
        tokens[first:],
        first=shift.queries[rows[0]] - first,
        title=(
            f"Where head {head} of layer {layer} looks",
            f"Куда смотрит голова {head} слоя {layer}",
        ),
        says=(
            f"Each row is a word of the text, each column a word that it may look back at. "
            f"“{tokens[shift.queries[rows[at]]]}” gave “{tokens[first + to]}” {was:.0%} of its "
            f"attention before and {now:.0%} after.",
            f"Строка — слово текста, столбец — слово, на которое оно может оглянуться. "
            f"«{tokens[shift.queries[rows[at]]]}» уделяло «{tokens[first + to]}» {was:.0%} "
            f"внимания, теперь {now:.0%}.",
        ),
    )


def _largest(
    before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]
) -> tuple[int, int, float, float]:
    """Return row, column, before and after of the largest change."""
    found = max(
        (
            (abs(now - was), at, to, was, now)
            for at, (early, late) in enumerate(zip(before, after, strict=True))
            for to, (was, now) in enumerate(zip(early, late, strict=True))
        )
    )
    return found[1:]
