"""Makes scores mean what they say: the temperature, and the score below which an answer is called unknown.

Both come from images that the scored model was not trained on. Temperature scaling after Guo et al. 2017, "On
Calibration of Modern Neural Networks": one number that never changes which class wins.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Logits = NDArray[np.float32]
Labels = NDArray[np.intp]

_MOST_KNOWN = 0.99
_FEWEST_IMAGES = 20
_AT_ONCE = 10_000


def softmax(logits: Logits) -> Logits:
    """float32 [N,C] -> probabilities float32 [N,C]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def log_loss(logits: Logits, labels: Labels) -> float:
    """Mean negative log-likelihood, in nats."""
    return float(np.mean(log_losses(logits, labels)))


def log_losses(logits: Logits, labels: Labels) -> Logits:
    """Negative log-likelihood of each image, in nats: [N]."""
    losses = np.empty(len(labels), logits.dtype)
    for start in range(0, len(labels), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        shifted = logits[some] - logits[some].max(axis=1, keepdims=True)
        normaliser = np.log(np.exp(shifted).sum(axis=1))
        losses[some] = normaliser - shifted[np.arange(len(shifted)), labels[some]]
    return losses


def temperature(logits: Logits, labels: Labels) -> float:
    """What logits must be divided by for the smallest log-loss, between 0.05 and 20; 1 for too few images.

    N right answers of N do not say that the next is right: by the rule of succession it is wrong with 1 / (N + 2), so
    that share of each target lies on the other classes (Platt 1999 does the same). Without it the best temperature of
    a faultless model is 0, and it is as sure of what it has never seen as of what it knows.
    """
    if len(labels) < _FEWEST_IMAGES:
        return 1.0
    exact = logits.astype(np.float64)
    doubt = 1 / (len(labels) + 2)
    others = doubt / (logits.shape[1] - 1)

    def loss(log_t: float) -> float:
        scaled = exact / np.exp(log_t)
        mean = float((scaled[np.arange(len(scaled)), labels] - scaled.mean(axis=1)).mean())
        # sum of target x -log p = -log p of the label + what the other classes' share adds
        return float(log_loss(scaled, labels) + others * logits.shape[1] * mean)

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def unknown_threshold(scores: Logits, labels: Labels) -> float:
    """The score that 99 % of the right answers reach; 0, which marks nothing, for too few right answers."""
    right = scores.argmax(axis=1) == labels
    if right.sum() < _FEWEST_IMAGES:
        return 0.0
    return float(np.quantile(scores.max(axis=1)[right], 1 - _MOST_KNOWN, method="lower"))
