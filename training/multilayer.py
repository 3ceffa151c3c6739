"""The strategy `multilayer`: logistic regression on the pooled features of several depths together.

Close to ImageNet the last features do most of the work; far from it the earlier ones do. Given all of them,
standardised, the penalty decides. They come from the same forward pass, so they cost nothing more to compute or to
serve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training import linear
from training.backbones import Backbone
from training.calibration import Labels
from training.linear import LinearHead
from training.task import Task, Trained


def train(task: Task, backbone: Backbone, features: Mapping[str, NDArray[np.float32]]) -> Trained:
    """Fits the head on train and validation together and joins it to the backbone.

    Args:
        task: what to learn.
        backbone: stays as it is.
        features: by depth, of all images of train and validation, in this order.
    """
    fitted = list(task.split.train + task.split.validation)
    groups = [task.groups[position] for position in fitted]
    head = fit(features, task.labels[fitted], groups, task.classes, task.seed)
    result = linear.trained(task, backbone, head, tuple(features))
    tried = [replace(one, candidate=one.candidate.replace("linear", "multilayer")) for one in result.tried]
    return replace(result, hyperparameters=result.hyperparameters | {"layers": ", ".join(features)}, tried=tried)


def fit(
    features: Mapping[str, NDArray[np.float32]], labels: Labels, groups: Sequence[int], classes: int, seed: int = 0
) -> LinearHead:
    """As linear.fit, on the depths side by side.

    Each depth is brought to the same size first: in an untrained network one may be 1e-18 of another, and what is so
    much smaller than its neighbours would be taken for constant.
    """
    if len(labels) > linear.AT_ONCE:
        return linear.fit_streamed(list(features.values()), labels, groups, classes, seed=seed)
    sizes = [float(np.abs(values).max()) or 1.0 for values in features.values()]
    together = np.hstack([values / size for values, size in zip(features.values(), sizes, strict=True)])
    head = linear.fit(together, labels, groups, classes, seed=seed)
    by_column = np.repeat(sizes, [values.shape[1] for values in features.values()])
    return replace(head, kernel=(head.kernel / by_column[:, None]).astype(np.float32))
