"""service/engine/cost.py: what a batch costs is learned, whatever is seen of it and in whatever order."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.cost import BatchCost

_SECONDS = st.floats(1e-6, 100.0)


@given(st.lists(st.tuples(st.integers(1, 8), _SECONDS), min_size=1, max_size=50))
def test_every_estimate_lies_among_what_was_seen(seen: list[tuple[int, float]]) -> None:
    """No estimate of any size leaves the range of the seconds seen, per image for the larger sizes."""
    cost = BatchCost(8)
    for size, seconds in seen:
        cost.observe(size, seconds)
    low, high = min(seconds for _, seconds in seen), max(seconds for _, seconds in seen)
    for size in range(1, 9):
        assert low / 8 * 0.999 <= cost.seconds(size) <= high * size * 1.001


@given(st.integers(1, 8), _SECONDS, _SECONDS)
def test_a_change_of_speed_is_learned(size: int, before: float, after: float) -> None:
    """However fast or slow it was before; some hundred batches later the estimate is that of now."""
    cost = BatchCost(8)
    cost.observe(size, before)
    for _ in range(300):
        cost.observe(size, after)
    assert cost.seconds(size) == pytest.approx(after, rel=0.01)


def test_one_batch_that_was_held_up_changes_little() -> None:
    """A second instead of a hundredth: the estimate grows by a fifth."""
    cost = BatchCost(4)
    cost.observe(4, 0.01)
    cost.observe(4, 1.0)
    assert cost.seconds(4) == pytest.approx(0.012)


@given(st.integers(1, 8), st.integers(1, 8), st.floats(2, 1000))
def test_batches_that_are_cut_short_are_learned_from_at_once(learned: int, size: int, slower: float) -> None:
    """After four of them the estimates of all sizes are most of the way to where they belong, and not beyond it."""
    cost = BatchCost(8)
    cost.observe(learned, 0.01)
    before = [cost.seconds(one) for one in range(1, 9)]
    for _ in range(4):
        cost.observe_at_least(size, slower * before[size - 1])
    for one in range(1, 9):
        assert 0.9 * slower * before[one - 1] <= cost.seconds(one) <= 1.001 * slower * before[one - 1]


def test_a_batch_that_was_cut_short_never_makes_an_estimate_smaller() -> None:
    """It only says that a whole one takes longer than this."""
    cost = BatchCost(4)
    cost.observe(4, 0.1)
    cost.observe_at_least(4, 0.01)
    assert cost.seconds(4) == pytest.approx(0.1)


@given(st.lists(st.tuples(st.integers(1, 8), _SECONDS), max_size=30), st.floats(0, 1000))
def test_the_largest_batch_within_a_limit(seen: list[tuple[int, float]], limit_s: float) -> None:
    """It is within the limit, or one image; all larger ones are not."""
    cost = BatchCost(8)
    for size, seconds in seen:
        cost.observe(size, seconds)
    largest = cost.largest(limit_s)
    assert largest == 1 or cost.seconds(largest) <= limit_s
    assert all(cost.seconds(size) > limit_s for size in range(largest + 1, 9))
    assert cost.largest(math.inf) == 8


@pytest.mark.parametrize("limit_s", [0.03, 0.2])
def test_a_batch_that_costs_little_more_than_one_image_is_found(limit_s: float) -> None:
    """On a device where 32 images cost as much as 2, following the estimate leads to the size that the limit allows."""

    def truth(size: int) -> float:
        return 0.01 + 0.001 * size

    cost = BatchCost(32)
    for _ in range(400):
        size = cost.largest(limit_s)
        cost.observe(size, truth(size))
    best = min(32, round((limit_s - 0.01) / 0.001))
    assert best - 1 <= cost.largest(limit_s) <= best


def test_a_size_that_was_slow_in_a_bad_minute_is_tried_again() -> None:
    """Batches of 8 were too slow for the limit; when those of 4 have become quick, 8 is allowed again."""
    cost = BatchCost(8)
    for _ in range(50):
        cost.observe(8, 1.0)
    assert cost.largest(0.1) < 8
    for _ in range(100):
        cost.observe(cost.largest(0.1), 0.005 * cost.largest(0.1))
    assert cost.largest(0.1) == 8
