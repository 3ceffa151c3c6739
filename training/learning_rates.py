"""How fast each layer learns, and when: Adam with a share of the rate per variable, warm-up, then half a cosine."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import keras

from training import backbones

DECAY: Final = 0.9
"""Of the rate, per block towards the input: what AutoGluon does by default. Early blocks see edges and colours, which
hold for any picture; what they have learnt from a million pictures a few hundred can only spoil."""

_WARM_UP: Final = 0.1


class Adam(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam whose rate is multiplied by each variable's own share.

    Args:
        learning_rate: a number or a schedule.
        shares: by the order of the variables that are trained.
    """

    def __init__(self, learning_rate: Any, shares: Sequence[float]) -> None:  # noqa: ANN401 - keras is untyped
        super().__init__(learning_rate)
        self._shares = tuple(shares)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:  # noqa: ANN401 - Keras' signature
        """One step of one variable."""
        # Keras has no rates per layer; Adam itself asks for its moments by this index.
        share = self._shares[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * share)


def warm_cosine(learning_rate: float, steps: int) -> Any:  # noqa: ANN401 - keras is untyped
    """From 0 to the rate in the first tenth of all steps, and back to 0 along half a cosine."""
    warm_up = max(1, round(_WARM_UP * steps))
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm_up), warmup_target=learning_rate, warmup_steps=warm_up
    )


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


def optimizer(model: Any, rate: Any, by_path: Mapping[str, float]) -> Any:  # noqa: ANN401 - keras is untyped
    """Adam for all that is trainable in a model; what has no share, such as a new head, learns at the full rate."""
    return Adam(rate, [by_path.get(variable.path, 1.0) for variable in model.trainable_weights])
