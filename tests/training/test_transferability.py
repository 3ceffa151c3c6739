"""LogME ranks features by how well they suit the labels, whatever their scale and width."""

import numpy as np
import pytest

from training import transferability


def _features(
    informative: float, images: int = 120, width: int = 20, classes: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(images) % classes
    centres = np.random.default_rng(1).normal(0, informative, (classes, width))
    return (centres[labels] + random.normal(0, 1, (images, width))).astype(np.float32), labels


@pytest.mark.parametrize("width", [5, 60, 400])
def test_informative_features_rank_above_noise(width: int):
    """The more the features say about the labels, the higher; with more features than images too."""
    found = [transferability.logme(*_features(informative, width=width), 3) for informative in (0, 0.5, 2)]
    assert found == sorted(found)
    assert found[2] > found[0] + 0.1


def test_scale_does_not_matter():
    """Features a million times larger, and moved, are as good."""
    features, labels = _features(1)
    assert transferability.logme(features * 1e6 + 3, labels, 3) == pytest.approx(
        transferability.logme(features, labels, 3), rel=1e-3
    )


def test_evidence_is_the_marginal_likelihood():
    """At the alpha and beta found, the evidence is the density of the labels under the model's own Gaussian."""
    features, labels = _features(1, images=40, width=6, classes=2)
    exact = (features - features.mean(axis=0)) / features.std(axis=0)
    target = np.eye(2)[labels][:, 0] - 0.5
    best = -np.inf
    for ratio in np.logspace(-4, 4, 200):
        # y ~ N(0, (I + F F' / ratio) / beta), beta at its best
        covariance = np.eye(40) + exact @ exact.T / ratio
        quadratic = target @ np.linalg.solve(covariance, target)
        beta = 40 / quadratic
        logarithm = np.linalg.slogdet(covariance)[1]
        best = max(best, 0.5 * (40 * np.log(beta) - logarithm - 40 - 40 * np.log(2 * np.pi)) / 40)
    assert transferability.logme(features, labels, 2) == pytest.approx(best, abs=2e-3)


def test_many_images_are_sampled():
    """Beyond a thousand images a sample decides, the same for the same seed."""
    features, labels = _features(1, images=3000)
    assert transferability.logme(features, labels, 3, seed=4) == transferability.logme(features, labels, 3, seed=4)


@pytest.mark.parametrize("images", [3, 4, 7])
def test_very_few_images(images: int):
    """A handful of images with many features gives a number, not an error."""
    features, labels = _features(1, images=images, width=300)
    assert np.isfinite(transferability.logme(features, labels, 3))
