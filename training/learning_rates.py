"""How fast each layer learns, and when: clipped Adam, a share of its rate per variable, warm-up, half a cosine."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import keras
import tensorflow as tf

from training import backbones

DECAY: Final = 0.9
"""Of the rate, per block towards the input: what AutoGluon does by default. Early blocks see edges and colours, which
hold for any picture; what they have learnt from a million pictures a few hundred can only spoil."""

_WARM_UP: Final = 0.1
_LONGEST: Final = 1.0
"""Of a step's gradient, over all variables: without it, at these rates, one batch can ruin what was pre-trained."""


class Adam(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam by clipped gradients, whose rate is multiplied by each variable's own share.

    Args:
        learning_rate: to begin with; a schedule sets it anew for each step.
        shares: by the order of the variables that are trained.
    """

    def __init__(self, learning_rate: float, shares: Sequence[float]) -> None:
        super().__init__(learning_rate)
        self._shares = tuple(shares)

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """One step of all variables."""
        # Keras' own global_clipnorm is of what one replica has, before they are added up.
        added = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, list(grads))
        share = tf.minimum(1.0, _LONGEST / tf.linalg.global_norm(added))
        super().apply([gradient * share for gradient in grads], trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:  # noqa: ANN401 - Keras' signature
        """One step of one variable."""
        # Keras has no rates per layer; Adam itself asks for its moments by this index.
        share = self._shares[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * share)


Schedule = Callable[[float], float]
"""From how much of a training is done, 0 to 1, to the learning rate."""


def constant(learning_rate: float) -> Schedule:
    """The same throughout."""
    return lambda _done: learning_rate


def warm_cosine(learning_rate: float) -> Schedule:
    """From 0 to the rate in the first tenth, and back to 0 along half a cosine."""

    def rate(done: float) -> float:
        if done < _WARM_UP:
            return learning_rate * done / _WARM_UP
        return learning_rate * (1 + math.cos(math.pi * min(1.0, (done - _WARM_UP) / (1 - _WARM_UP)))) / 2

    return rate


def shares(network: Any) -> dict[str, float]:  # noqa: ANN401 - keras is untyped
    """The share of each of a backbone's variables by path: 1 in the last block, and DECAY less in each block before."""
    starts = {id(cut) for cut in backbones.boundaries(network)}
    back = len(starts)
    found: dict[str, float] = {}
    for operation in network.operations:
        for variable in getattr(operation, "trainable_weights", ()):
            found[variable.path] = DECAY**back
        if id(operation) in starts:
            back -= 1
    return found


def optimizer(model: Any, by_path: Mapping[str, float]) -> Any:  # noqa: ANN401 - keras is untyped
    """Adam for all that is trainable in a model; what has no share, such as a new head, learns at the full rate."""
    return Adam(0.0, [by_path.get(variable.path, 1.0) for variable in model.trainable_weights])
