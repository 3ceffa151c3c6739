"""Likely label errors, by confident learning: what a head that has not seen an image says against its label.

C. Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021: an
image counts as of another class when its out-of-fold probability for that class reaches what images labelled so have
on average. Thresholds per class make it blind to a class that the head is unsure of, or sure of, throughout.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.audit.findings import Finding, example
from training.calibration import Labels
from training.dataset import Dataset

KIND: Final = "label-errors"


@dataclass(frozen=True)
class Suspect:
    """An image that another class's head claims.

    Attributes:
        position: of the image.
        suggested: class number.
        margin: out-of-fold score of the suggested class less that of the label, 0 to 1; larger is surer.
    """

    position: int
    suggested: int
    margin: float


def suspects(scores: NDArray[np.float32], labels: Labels, held_out: NDArray[np.bool_]) -> list[Suspect]:
    """Images whose label is likely wrong, the surest first.

    Args:
        scores: probabilities, float32 [N,C].
        labels: class number per image; every class occurs.
        held_out: which scores are out of fold, [N]; the others say nothing, nor does a class without any.
    """
    rows = np.arange(len(labels))
    thresholds = np.full(scores.shape[1], np.inf)
    for label in np.unique(labels[held_out]):
        thresholds[label] = scores[held_out & (labels == label), label].mean()
    claimed = np.where(scores >= thresholds, scores, -1.0)
    suggested = claimed.argmax(axis=1)
    margins = scores[rows, suggested] - scores[rows, labels]
    found = np.flatnonzero(held_out & (claimed[rows, suggested] >= 0) & (suggested != labels) & (margins > 0))
    order = found[np.argsort(-margins[found], kind="stable")]
    return [Suspect(int(at), int(suggested[at]), float(margins[at])) for at in order]


def finding(dataset: Dataset, scores: NDArray[np.float32], labels: Labels, held_out: NDArray[np.bool_]) -> Finding:
    """The suspects as a finding; its examples are ranked.

    Args:
        dataset: of N images and C classes.
        scores: as in `suspects`.
        labels: likewise.
        held_out: likewise.
    """
    examples = []
    for one in suspects(scores, labels, held_out):
        label, other = dataset.class_names[labels[one.position]], dataset.class_names[one.suggested]
        low, high = scores[one.position, labels[one.position]], scores[one.position, one.suggested]
        examples.append(
            example(dataset, [one.position], f"labelled {label} ({low:.2f}), looks like {other} ({high:.2f})")
        )
    return Finding(
        KIND,
        "warning",
        len(examples),
        "images",
        "labels that are likely wrong",
        "A head that was not trained on these images is sure of another class. Look at them, the surest first: some "
        "are wrong labels, some show both classes, some are just hard.",
        tuple(examples),
    )
