"""Accuracy, its interval, precision and recall are the textbook's."""

import numpy as np
import pytest

from training import evaluation


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (50, 100, 0.40383, 0.59617), (128, 131, 0.93484, 0.99218)],
)
def test_wilson_interval(right: int, images: int, low: float, high: float):
    """Known values, and never outside 0 to 1."""
    assert evaluation.wilson(right, images) == pytest.approx((low, high), abs=2e-5)


def test_wilson_covers():
    """Of 2000 experiments with a known share, about 95 % have it inside their interval."""
    random = np.random.default_rng(0)
    inside = [
        low <= 0.9 <= high for low, high in (evaluation.wilson(int(n), 60) for n in random.binomial(60, 0.9, 2000))
    ]
    assert 0.93 < np.mean(inside) < 0.97


def test_by_class():
    """Precision and recall count hits among answers and among images; a class never answered has precision 0."""
    labels, answers = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])
    result = evaluation.evaluate(labels, answers, ["a", "b", "c"], "openvino/f32")
    assert (result.images, result.engine) == (6, "openvino/f32")
    assert result.accuracy == pytest.approx(4 / 6)
    found = [(one.label, one.images, one.precision, one.recall) for one in result.classes]
    assert found == [
        ("a", 3, pytest.approx(2 / 3), pytest.approx(2 / 3)),
        ("b", 2, pytest.approx(2 / 3), 1.0),
        ("c", 1, 0.0, 0.0),
    ]
    assert evaluation.confusion(labels, answers, 3).tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]


def test_no_images():
    """Nothing to say about nothing: no interval, no division by zero."""
    result = evaluation.evaluate(np.array([], np.intp), np.array([], np.intp), ["a", "b"])
    assert (result.images, result.accuracy, list(result.accuracy_interval)) == (0, 0.0, [])
