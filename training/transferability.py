"""How well features suit labels, without training anything: LogME.

You et al. 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning",
https://arxiv.org/abs/2102.11005.
"""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from training.calibration import Labels

_MOST_IMAGES = 1000
_MOST_STEPS = 50
_TINY = 1e-12


def logme(features: NDArray[np.float32], labels: Labels, classes: int, *, seed: int = 0) -> float:
    """The evidence for a Bayesian linear regression from the features to each class' indicator.

    Args:
        features: float32 [N,D]; standardised here, so that depths of other scales compare.
        labels: class number per image.
        classes: C.
        seed: of the 1000 images that are looked at where there are more.

    Returns:
        Mean over the classes of the maximal log marginal likelihood per image, in nats; higher suits better.
    """
    if len(labels) > _MOST_IMAGES:
        some = np.random.default_rng(seed).permutation(len(labels))[:_MOST_IMAGES]
        features, labels = features[some], labels[some]
    exact = features.astype(np.float64)
    exact -= exact.mean(axis=0)
    deviation = exact.std(axis=0)
    exact /= np.where(deviation > 1e-6 * deviation.max(), deviation, 1.0)
    images, width = exact.shape
    # Eigenvalues of the smaller product: five times faster than the singular values of the features.
    with threadpool_limits(1):
        if images > width:
            squares, right = np.linalg.eigh(exact.T @ exact)
            squares = np.clip(squares, _TINY, None)
            left = exact @ right / np.sqrt(squares)
        else:
            squares, left = np.linalg.eigh(exact @ exact.T)
            squares = np.clip(squares, _TINY, None)
    indicators = np.eye(classes)[labels]
    indicators -= indicators.mean(axis=0)
    present = np.flatnonzero(np.bincount(labels, minlength=classes))
    return float(
        np.mean([_evidence(squares, left.T @ indicators[:, one], indicators[:, one], width) for one in present])
    )


def _evidence(
    squares: NDArray[np.float64], projected: NDArray[np.float64], target: NDArray[np.float64], width: int
) -> float:
    """Maximal evidence per image, by the paper's fixed point for alpha (of the weights) and beta (of the noise)."""
    images = len(target)
    parallel = projected**2
    outside = max(0.0, float(target @ target - parallel.sum()))
    alpha = beta = 1.0
    for _ in range(_MOST_STEPS):
        ratio = alpha / beta
        gamma = float(np.sum(squares / (squares + ratio)))
        weights = float(np.sum(squares * parallel / (squares + ratio) ** 2))
        residual = float(np.sum(parallel * (ratio / (squares + ratio)) ** 2)) + outside
        # Kept apart from nothing: a few images are fitted without any residual.
        alpha = max(gamma, _TINY) / (weights + _TINY)
        beta = max(images - gamma, _TINY) / (residual + _TINY)
        if abs(alpha / beta - ratio) <= 1e-3 * ratio:
            break
    evidence = (
        width * np.log(alpha)
        + images * np.log(beta)
        - np.sum(np.log(alpha + beta * squares))
        - (width - len(squares)) * np.log(alpha)
        - beta * residual
        - alpha * weights
        - images * np.log(2 * np.pi)
    )
    return float(evidence / 2 / images)
