"""Calibration: the rule of the knee by hand, and a measured curve."""

import json

import pytest

from loratelier.check import calibrate
from loratelier.check.curve import Point, knee, picture
from loratelier.corpus import build_corpus


def point(strength, gain, rise, sure=True):
    low = gain - 0.01 if sure else -0.1
    return Point(strength, gain, (low, gain + 0.01), rise, (rise, rise), 0.1)


def test_the_knee_is_the_lowest_strength_with_nearly_the_best_gain():
    curve = [
        point(0, 0, 0, sure=False), point(0.5, 0.5, 0.001), point(0.75, 0.97, 0.01),
        point(1, 1.0, 0.019), point(1.25, 2.0, 0.03),
    ]  # fmt: skip
    assert knee(curve, 0.02) == 0.75
    assert knee(curve, 0.05) == 1.25
    assert knee(curve[:1], 0.05) is None


@pytest.fixture
def corpus(tmp_path):
    lines = [
        {"messages": [{"role": "user", "content": f"Where is {n}?"},
                      {"role": "assistant", "content": f"Where {n} was, there it waits."}]}
        for n in ("the sea", "my key", "the road", "a name")
    ]  # fmt: skip
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "talk.jsonl").write_text(text, encoding="utf-8")
    return build_corpus(tmp_path / "talk.jsonl", holdout=0)


def test_a_curve_begins_at_the_base_and_is_drawn(tiny_base, loud, corpus):
    seen = calibrate(tiny_base, loud, corpus, strengths=(0.0, 1.0))
    off, on = seen.points
    assert (off.gain, off.rise, off.kl) == (0, 0, 0)
    assert on.kl > 0 and on.gain != 0
    lines = picture(seen).splitlines()
    assert len(lines) == 3 and "█" in lines[2] and "█" not in lines[1]
