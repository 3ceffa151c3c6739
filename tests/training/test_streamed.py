"""Fits that read their features chunk by chunk find what scikit-learn finds with all of them in memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from training import linear, matrix, multilayer, streamed, svm
from training.linear import Estimator


def _blobs(classes: int, count: int, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    features = random.normal(0, 1, (classes, width))[labels] * 0.5 + random.normal(0, 1, (count, width))
    return (features * random.uniform(0.01, 100, width) + 5).astype(np.float32), labels


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "_CHUNK_BYTES", 4 * 12 * 50)
    monkeypatch.setattr(streamed, "_MAPPED_BYTES", 4 * 12 * 120)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(
    ("model", "loss", "penalise_bias"),
    [
        (LogisticRegression(C=0.1, tol=1e-6, max_iter=1000), streamed.cross_entropy, False),
        (LinearSVC(C=0.01, dual=False, tol=1e-6), streamed.squared_hinge, True),
    ],
)
def test_solution_is_scikit_learn_s(
    classes: int,
    model: LogisticRegression | LinearSVC,
    loss: streamed.Loss,
    penalise_bias: bool,
    monkeypatch: pytest.MonkeyPatch,
):
    """Same weights and bias, with two parts side by side, chunks that do not divide the rows, and some rows only."""
    monkeypatch.setattr(streamed, "_TOLERANCE", 1e-6)
    features, labels = _blobs(classes, 620)
    table = streamed.standardise([features[:, :5], features[:, 5:]])
    rows = np.flatnonzero(np.arange(620) % 3)
    start = np.zeros((13, 1 if classes == 2 else classes), np.float32)
    weights = streamed.fit(table, labels, rows, strength=model.C, loss=loss, start=start, penalise_bias=penalise_bias)
    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    model.fit(standardised[rows], labels[rows])
    np.testing.assert_allclose(weights[:-1].T, model.coef_, atol=2e-4)
    np.testing.assert_allclose(weights[-1], model.intercept_, atol=2e-4)
    expected = model.decision_function(standardised).reshape(620, -1)
    np.testing.assert_allclose(streamed.logits(table, weights, np.arange(620)), expected, atol=2e-3)


@pytest.mark.parametrize("estimator", [linear.LOGISTIC, svm.MACHINE])
@pytest.mark.parametrize("classes", [2, 3])
def test_head_is_the_one_fitted_in_memory(estimator: Estimator, classes: int, monkeypatch: pytest.MonkeyPatch):
    """Folds, held-out scores, temperature and kernel agree; only the strength is chosen on fewer images."""
    features, labels = _blobs(classes, 900)
    features[:, 3] = 7  # constant
    one = Estimator(estimator.make, (0.01,), 0.01, estimator.loss, estimator.margins, estimator.penalise_bias)
    expected = linear.fit(features, labels, range(900), classes, seed=3, estimator=one)
    monkeypatch.setattr(linear, "AT_ONCE", 300)
    progress: list[tuple[int, int]] = []
    head = linear.fit(
        features, labels, range(900), classes, seed=3, estimator=one, on_progress=lambda *at: progress.append(at)
    )
    np.testing.assert_allclose(head.scores, expected.scores, atol=5e-3)
    np.testing.assert_allclose(head.logits(features), expected.logits(features), atol=2e-2)
    assert head.temperature == pytest.approx(expected.temperature, rel=0.01)
    assert progress == sorted(progress)
    assert progress[-1][0] == progress[-1][1]


def test_strength_is_chosen_on_some(monkeypatch: pytest.MonkeyPatch):
    """Cross-validation of the strengths sees about as many images as it may, of every class and fold."""
    monkeypatch.setattr(linear, "AT_ONCE", 300)
    features, labels = _blobs(3, 3000)
    seen: list[int] = []
    fit: Callable[..., object] = LogisticRegression.fit

    def counted(self: LogisticRegression, x: np.ndarray, y: np.ndarray) -> object:
        seen.append(len(x))
        assert set(y) == {0, 1, 2}
        return fit(self, x, y)

    monkeypatch.setattr(LogisticRegression, "fit", counted)
    head = linear.fit(features, labels, range(3000), 3)
    assert max(seen) <= 320
    assert len(head.tried) == len(linear.STRENGTHS)
    assert head.scores.shape == (3000, 3)


@pytest.mark.parametrize("fewest", [1, 2])
def test_tiny_classes(fewest: int, monkeypatch: pytest.MonkeyPatch):
    """A class of two images is in every fit; a single one is held out of none."""
    monkeypatch.setattr(linear, "AT_ONCE", 100)
    features, labels = _blobs(2, 400)
    labels[:fewest] = 2
    head = linear.fit(features, labels, range(400), 3)
    assert head.kernel.shape == (12, 3)
    assert np.isfinite(head.kernel).all()
    assert len(head.tried) == len(linear.STRENGTHS)
    assert head.unknown_threshold > 0
    np.testing.assert_array_equal(head.held_out, (labels != 2) | (fewest > 1))


def test_copies_do_not_flatter(monkeypatch: pytest.MonkeyPatch):
    """A fold's fit knows nothing of its images, nor of others of their groups, from where it started either."""
    monkeypatch.setattr(linear, "AT_ONCE", 100)
    random = np.random.default_rng(0)
    originals, labels = random.normal(0, 1, (150, 90)).astype(np.float32), np.tile(np.arange(2), 75)
    grouped = linear.fit(np.vstack([originals] * 2), np.tile(labels, 2), np.tile(np.arange(150), 2), 2)
    assert np.mean(grouped.scores.argmax(axis=1) == np.tile(labels, 2)) < 0.65


def test_depths_of_other_scales_stand_side_by_side(monkeypatch: pytest.MonkeyPatch):
    """A depth that is 1e-18 of its neighbour, as in untrained networks, counts as much as that."""
    monkeypatch.setattr(linear, "AT_ONCE", 200)
    features, labels = _blobs(3, 800)
    usual = multilayer.fit({"early": features[:, :6], "final": features[:, 6:]}, labels, range(800), 3)
    tiny = multilayer.fit(
        {"early": features[:, :6] * np.float32(1e-18), "final": features[:, 6:]}, labels, range(800), 3
    )
    np.testing.assert_allclose(tiny.scores, usual.scores, atol=1e-2)
    assert np.isfinite(tiny.kernel).all()


def test_memory_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A fit of a matrix in a file never has more of it mapped than it may."""
    monkeypatch.setattr(matrix, "IN_MEMORY_BYTES", 0)
    features, _ = _blobs(3, 1000)
    lying = matrix.empty(1000, 12, tmp_path)
    lying[:] = features
    released: list[int] = []
    release = matrix.release
    monkeypatch.setattr(matrix, "release", lambda part: (released.append(len(part)), release(part)))
    table = streamed.standardise([lying])
    assert len(released) >= 2 * 1000 // 150  # two passes; 120 rows may be mapped, and a chunk has 50
    released.clear()
    streamed.logits(table, np.zeros((13, 3), np.float32), np.arange(1000))
    assert len(released) >= 1000 // 150
