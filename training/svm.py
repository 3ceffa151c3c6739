"""The strategy `svm`: a linear support vector machine on the pooled activations of an earlier layer.

Far from ImageNet the last features are too much about ImageNet; earlier ones are more general. Which layer and which C
is decided by cross-validation. Margins are no probabilities: they are divided by the temperature that suits the
out-of-fold margins best, then softmax, and that is what is exported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import LinearSVC

from training import depths, linear, streamed
from training.backbones import Backbone
from training.calibration import Labels
from training.linear import LinearHead
from training.task import Task, Trained, Tried

MACHINE: Final = linear.Estimator(
    # The primal problem: there are more images than early layers have features.
    lambda strength: LinearSVC(C=strength, dual=False, tol=1e-3, max_iter=5000, random_state=0),
    strengths=(1e-4, 1e-3, 1e-2, 1e-1),
    default=1e-2,
    loss=streamed.squared_hinge,
    margins=True,
    penalise_bias=True,
)


def train(task: Task, backbone: Backbone, features: Mapping[str, NDArray[np.float32]]) -> Trained:
    """Fits one machine per class and layer, and keeps the layer with the smallest out-of-fold log-loss.

    Args:
        task: what to learn.
        backbone: stays as it is.
        features: by depth, of all images of train and validation, in this order.
    """
    fitted = list(task.split.train + task.split.validation)
    groups = [task.groups[position] for position in fitted]
    heads = {
        layer: fit(features[layer], task.labels[fitted], groups, task.classes, task.seed) for layer in early(features)
    }
    ranked = sorted(heads, key=lambda layer: held_out_loss(heads[layer]))
    layer = ranked[0]
    result = linear.trained(task, backbone, heads[layer], (layer,))
    tried = [
        Tried(
            f"svm on {one}, C={strength.value:g}",
            strength.accuracy,
            strength.seconds,
            len(result.held_out),
            heads[one].kernel.size + heads[one].bias.size,
        )
        for one in ranked
        for strength in heads[one].tried
        if strength.value == heads[one].strength
    ]
    return replace(result, hyperparameters=result.hyperparameters | {"layer": layer}, tried=tried)


def early(layers: Mapping[str, object] | Sequence[str]) -> list[str]:
    """The depths before the last features, latest first; the last features where there are no others."""
    return [layer for layer in reversed(list(layers)) if layer != depths.FINAL] or [depths.FINAL]


def fit(
    features: NDArray[np.float32], labels: Labels, groups: Sequence[int], classes: int, seed: int = 0
) -> LinearHead:
    """As linear.fit, by support vector machines, one against the rest."""
    return linear.fit(features, labels, groups, classes, seed=seed, estimator=MACHINE)


def held_out_loss(head: LinearHead) -> float:
    """Log-loss out of fold of the chosen strength; infinite where there were too few images for folds."""
    return min((one.log_loss for one in head.tried), default=float("inf"))
