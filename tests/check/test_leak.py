"""The style classifier on made texts, and leak where every answer is known."""

import pytest

from loratelier.check.leak import lengths, markers, styled
from loratelier.check.style import learn_style

PLAIN = [
    f"The {noun} is kept in the {place}, and it weighs about {n} kilograms in all."
    for n, (noun, place) in enumerate(
        [(noun, place) for noun in ("box", "pump", "chair", "wheel") for place in
         ("cellar", "attic", "garage", "office", "stable", "harbour")], start=3)
]  # fmt: skip
STYLED = [
    f"И всё же {noun} молчит {place}, и молчание это длится {n} зим."
    for n, (noun, place) in enumerate(
        [(noun, place) for noun in ("дом", "камень", "мост", "берег") for place in
         ("у реки", "в снегу", "за холмом", "под луной", "в тумане", "у дороги")], start=3)
]  # fmt: skip


def test_two_styles_are_told_apart_and_a_leak_is_seen():
    style = learn_style(STYLED, PLAIN)
    assert style.tells and style.accuracy.value == 1
    asked = [f"request {n}" for n in range(12)]
    leaked = [*STYLED[:6], *PLAIN[6:12]]
    seen = styled(style, asked, PLAIN[:12], leaked)
    assert seen.before < 0.2
    assert seen.interval[0] > 0.1 and 0.3 < seen.change < 0.6
    assert {text for _, text, _ in seen.examples} <= set(STYLED)
    unmoved = styled(style, asked, PLAIN[:12], PLAIN[:12])
    assert unmoved.change == 0 and unmoved.interval == (0, 0)


def test_one_style_is_not_told_from_itself():
    style = learn_style(PLAIN, PLAIN)
    assert not style.tells
    assert style.accuracy.count == 48


def test_markers_and_lengths_are_counted():
    before = ["A plain answer.", "Another one.", "Обычный ответ."]
    after = ["# Head\n- one\n- two", "And what do I know?", "А что знаю я?"]
    found = {one.marker: one for one in markers(before, after)}
    assert found["markdown"].change == pytest.approx(1 / 3)
    assert found["question"].change == pytest.approx(2 / 3)
    assert found["first_person"].after.right == 2 and found["first_person"].before.right == 0
    long = lengths(["x" * 10, "x" * 20], ["x" * 20, "x" * 40])
    assert (long.before, long.after) == (15, 30)
    assert long.change == pytest.approx(1.0)
