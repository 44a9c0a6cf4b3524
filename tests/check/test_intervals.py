"""Statistics against hand-worked and published cases."""

import math
from itertools import product

import pytest

from loratelier.check.intervals import Accuracy, bootstrap, mcnemar, ratio, wilson


def test_wilson_is_the_published_one():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81/263 and 0/20, without correction.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)


def test_mcnemar_counts_every_way_that_the_flips_could_have_gone():
    for lost, won in ((0, 0), (0, 5), (3, 1), (4, 4), (7, 2)):
        ways = [sum(way) for way in product((0, 1), repeat=lost + won)]
        far = abs(lost - won)
        extreme = sum(abs(2 * way - lost - won) >= far for way in ways)
        assert mcnemar(lost, won) == pytest.approx(extreme / len(ways))


def test_a_bootstrap_is_near_the_normal_interval_and_steady():
    values = [math.sin(n) for n in range(200)]
    mean = sum(values) / 200
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / 199 / 200)
    low, high = bootstrap(values)
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=error / 4)
    assert bootstrap(values) == (low, high)
    assert bootstrap([0.0] * 9) == (0.0, 0.0)
    assert ratio([2.0, 4.0], [1.0, 2.0]) == (2.0, 2.0)


def test_a_standard_error_is_the_binomial_one():
    assert Accuracy(30, 40).error == pytest.approx(math.sqrt(0.75 * 0.25 / 40))
