"""The copy of a model that gradients are computed on, in mixed precision.

The model itself stays float32: it is what validates, what the best weights go back to and what is exported, so the
precision of training never reaches a version directory.
"""

from typing import Any, Final

import keras
import tensorflow as tf

_MIXED: Final = "mixed_bfloat16"
_AMPERE: Final = (8, 0)
"""The compute capability from which a GPU computes in bfloat16."""


def choose_precision(asked: str) -> str:
    """The precision for this host: "auto" is bfloat16 where every GPU computes in it, and float32 elsewhere."""
    if asked != "auto":
        return asked
    found = tf.config.list_physical_devices("GPU")
    capable = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in found]
    return "bfloat16" if found and min(capable) >= _AMPERE else "float32"


class Twin:
    """A model's copy for training, or the model itself for float32.

    Args:
        original: keras.Model, float32.
        precision: "float32" or "bfloat16".

    Attributes:
        model: what to compile and fit.
    """

    def __init__(self, original: Any, precision: str) -> None:  # noqa: ANN401 - keras is untyped
        self._original = self.model = original
        if precision != "float32":
            self.model = keras.models.clone_model(original, clone_function=self._copy, recursive=True)
            self.model.set_weights(original.get_weights())

    def give_back(self) -> None:
        """Makes the original's weights the copy's."""
        if self.model is not self._original:
            self._original.set_weights(self.model.get_weights())

    def _copy(self, operation: Any) -> Any:  # noqa: ANN401 - keras is untyped
        if not isinstance(operation, keras.Layer):
            return operation  # without weights, and its arguments are the graph's
        config = operation.get_config()
        # The logits stay float32, or their loss would be rounded.
        if operation is not self._original.layers[-1]:
            config["dtype"] = _MIXED
        return type(operation).from_config(config)
