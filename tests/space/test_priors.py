"""Draws of one open value: inside its range, as often on each side of the middle, no kind of value but its own."""

from math import isclose, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.space.priors import around
from sweeper.space.spec import Prior
from sweeper.space.tree import Choice, Node, Range

SHARES = st.floats(0, 1)
RANGES = st.sampled_from(
    [
        Range("uniform", 0.0, 1.0),
        Range("uniform", -3.0, 5.0, 0.25),
        Range("loguniform", 1e-6, 1e3),
        Range("int", 0, 4),
        Range("int", 2, 20, 6),
        Range("logint", 1, 512),
    ]
)


@given(RANGES, SHARES, SHARES)
def test_every_draw_is_a_value_of_the_range(distribution, share, place):
    middle = distribution.near(distribution.low + place * (distribution.high - distribution.low))
    found = around(distribution, middle).quantile(share)
    assert distribution.low <= found <= distribution.high
    assert distribution.near(found) == found
    assert type(found) is (int if distribution.whole else float)


@given(RANGES, SHARES, st.tuples(SHARES, SHARES))
def test_a_larger_share_is_no_smaller_value(distribution, place, shares):
    middle = distribution.near(distribution.low + place * (distribution.high - distribution.low))
    found = around(distribution, middle)
    assert found.quantile(min(shares)) <= found.quantile(max(shares))


def test_half_of_the_draws_lie_below_the_middle_and_two_of_three_within_a_factor():
    found = around(Range("loguniform", 1e-9, 1e9), 0.01, Prior(around=0.01, factor=5))
    assert isclose(found.quantile(0.5), 0.01)
    assert isclose(log(found.quantile(0.8413447)), log(0.05), rel_tol=1e-3)


def test_whole_numbers_are_neighbours():
    found = around(Range("int", 0, 3), 1)
    drawn = [found.quantile((n + 0.5) / 1000) for n in range(1000)]
    shares = [drawn.count(value) / 1000 for value in range(4)]
    assert shares[1] == max(shares)
    assert all(share > 0.05 for share in shares)


@pytest.mark.parametrize("labels", [(1, True, "a"), (True, 1, "a"), (None, False, 0)])
def test_an_option_is_not_taken_for_another_that_python_calls_equal(labels):
    choice = Choice(labels, tuple(Node(label) for label in labels))
    for label in labels:
        drawn = [around(choice, label).quantile(n / 100) for n in range(100)]
        assert sum(each is label for each in drawn) == 50
        assert all(sum(each is other for each in drawn) == 25 for other in labels if other is not label)


def test_a_choice_of_one_is_that_one():
    assert around(Choice(("a",), (Node("a"),)), "a").quantile(0.99) == "a"
