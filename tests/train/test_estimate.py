"""What is said before the first step, and the time that is left after some."""

from contextlib import contextmanager
from time import perf_counter

import pytest

from loratelier.kit.errors import InputError
from loratelier.kit.progress import report_to
from loratelier.train import clock, estimate, train


class Heard:
    """A reporter that keeps the remarks, and when which time was left of the training."""

    def __init__(self):
        self.remarks, self.left, self.ended = [], [], None

    @contextmanager
    def task(self, description, total):
        yield self
        if description == "Training":
            self.ended = perf_counter()

    def advance(self, amount=1):
        pass

    def say(self, note, left=None):
        self.left.append((perf_counter(), left))

    def remark(self, text):
        self.remarks.append(text)


def test_before_the_first_step_one_line_says_memory_its_parts_and_the_time(tiny_base, recipe, home):
    heard = Heard()
    with report_to(heard):
        train(recipe(), base=tiny_base)
    said = [each for each in heard.remarks if each.startswith("Memory: ")]
    assert len(said) == 1
    for word in ("about", "framework", "this machine has", "time about"):
        assert word in said[0]
    before = next(n for n, each in enumerate(heard.remarks) if each.startswith("The base: "))
    assert heard.remarks.index(said[0]) < before


@pytest.mark.parametrize(
    ("free", "changes", "mend"),
    [
        (0.9, {}, "checkpointing=true"),
        (0.9, {"checkpointing": True, "batch_tokens": 400}, "pack_tokens=200"),
    ],
)
def test_a_run_that_may_not_fit_is_warned_of_with_a_mend(
    tiny_base, recipe, home, monkeypatch, free, changes, mend
):
    plans = []
    foresee = estimate.foresee
    monkeypatch.setattr(
        estimate, "foresee", lambda *given: plans.append(foresee(*given)) or plans[-1]
    )
    monkeypatch.setattr(estimate, "_held_already", lambda _: 0)
    monkeypatch.setattr(estimate, "free_memory", lambda _: int(plans[-1].total * free))
    heard = Heard()
    with report_to(heard):
        train(recipe(epochs=1, **changes), base=tiny_base)
    assert any("too little" in said and mend in said for said in heard.remarks)


def test_a_run_that_cannot_fit_is_refused_before_the_first_step(
    tiny_base, recipe, home, monkeypatch
):
    monkeypatch.setattr(estimate, "free_memory", lambda _: 0)
    monkeypatch.setattr(estimate, "_held_already", lambda _: 2**20)
    monkeypatch.setattr(estimate, "_swap", lambda _: 0)
    with pytest.raises(InputError, match=r"'mine' needs about .* Try --set checkpointing=true"):
        train(recipe(), base=tiny_base)
    # The base comes back as it came.
    assert not any(p.requires_grad for p in tiny_base.model.parameters())


def test_the_plan_is_of_the_run_s_own_packs_and_layers(tiny_base, recipe, home, monkeypatch):
    plans = []
    foresee = estimate.foresee
    monkeypatch.setattr(
        estimate, "foresee", lambda *given: plans.append(foresee(*given)) or plans[-1]
    )
    train(recipe(epochs=1), base=tiny_base)
    train(recipe(epochs=1, name="top", layers="1", pack_tokens=200), base=tiny_base)
    train(recipe(epochs=1, name="ranks", rank_pattern={"q": 16}), base=tiny_base)
    train(recipe(epochs=1, name="padded", packing=False), base=tiny_base)
    whole, top, ranks, padded = plans
    linear = 2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128)
    assert whole.trained == 2 * 4 * linear
    assert top.trained == 4 * linear
    assert ranks.trained == whole.trained + 2 * 12 * (64 + 64)
    assert 200 < whole.tokens <= 400
    assert top.tokens <= 200
    assert padded.tokens <= 400
    assert top.held.step.kept < whole.held.step.kept / 2


def test_the_time_left_counts_work_and_evaluations(monkeypatch):
    times = iter([0.0, 5.0, 8.0, 9.0, 16.0, 18.0])
    monkeypatch.setattr(clock, "perf_counter", lambda: next(times))
    ours = clock.Clock([10.0, 10.0, 20.0, 40.0], [False, True, False, True])
    ours.evaluated()
    # After one step there is nothing else to go by.
    assert ours.stepped() == pytest.approx(0.3 * 70 + 2 * 5)
    # The first step warmed up; an evaluation follows this one and the last.
    assert ours.stepped() == pytest.approx(0.1 * 60 + 2 * 5)
    ours.evaluated()
    assert ours.stepped() == pytest.approx(0.1 * 40 + 7)


def test_after_ten_steps_the_time_left_is_what_it_then_takes(tiny_base, recipe, home):
    heard = Heard()
    with report_to(heard):
        train(recipe(epochs=15, batch_tokens=400, patience=100), base=tiny_base)
    assert len(heard.left) > 25
    said = [(left, heard.ended - when) for when, left in heard.left]
    # One moment may be that of a hiccup of the machine; they are not all.
    near = [abs(left - took) <= 0.3 * took for left, took in said[9:20]]
    assert sum(near) >= 8, said[9:20]
