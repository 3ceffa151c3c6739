"""The copy of a model that gradients are computed on: on several GPUs, in mixed precision.

Owns where and in what precision gradient training computes. The model itself stays float32 on one device: it is what
validates, what the best weights go back to and what is exported, so neither choice reaches a version directory.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import keras
import tensorflow as tf

_MIXED: Final = "mixed_bfloat16"
_AMPERE: Final = (8, 0)
"""The compute capability from which a GPU computes in bfloat16."""


@dataclass(frozen=True)
class Placement:
    """Where gradients are computed, and how.

    Attributes:
        devices: TensorFlow's names; empty for wherever it puts one model.
        precision: "float32" or "bfloat16".
    """

    devices: tuple[str, ...] = ()
    precision: str = "float32"

    @property
    def replicas(self) -> int:
        """Devices that share each batch."""
        return max(1, len(self.devices))

    def describe(self) -> dict[str, str]:
        """For the manifest; empty for the usual: float32, one device."""
        said = {"precision": self.precision} if self.precision != "float32" else {}
        return said | ({"replicas": str(self.replicas)} if self.replicas > 1 else {})


def place(precision: str) -> Placement:
    """What this host's GPUs are good for.

    All GPUs that TensorFlow sees are used; `CUDA_VISIBLE_DEVICES` chooses.

    Args:
        precision: "float32", "bfloat16", or "auto": bfloat16 where every GPU computes in it, float32 elsewhere.
    """
    found = tf.config.list_physical_devices("GPU")
    if precision == "auto":
        capable = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in found]
        precision = "bfloat16" if found and min(capable) >= _AMPERE else "float32"
    several = tuple(gpu.name for gpu in tf.config.list_logical_devices("GPU")) if len(found) > 1 else ()
    return Placement(several, precision)


class Twin:
    """A model's copy for training, or the model itself where nothing is to be different.

    Args:
        original: keras.Model, float32.
        placement: of the copy.

    Attributes:
        model: what to compile and fit, inside `scope`.
    """

    def __init__(self, original: Any, placement: Placement) -> None:  # noqa: ANN401 - keras is untyped
        self._original, self._placement = original, placement
        self._strategy = _mirrored(placement.devices) if placement.replicas > 1 else None
        self.model = original
        if self._strategy is not None or placement.precision != "float32":
            with self.scope():
                self.model = keras.models.clone_model(original, clone_function=self._copy, recursive=True)
                self.model.set_weights(original.get_weights())

    def scope(self) -> AbstractContextManager[Any]:
        """Inside it variables are made and steps are run."""
        return nullcontext() if self._strategy is None else self._strategy.scope()

    def give_back(self) -> None:
        """Makes the original's weights the copy's."""
        if self.model is not self._original:
            self._original.set_weights(self.model.get_weights())

    def _copy(self, operation: Any) -> Any:  # noqa: ANN401 - keras is untyped
        if not isinstance(operation, keras.Layer):
            return operation  # without weights, and its arguments are the graph's
        config = operation.get_config()
        # The logits stay float32, or their loss would be rounded.
        if self._placement.precision != "float32" and operation is not self._original.layers[-1]:
            config["dtype"] = _MIXED
        return type(operation).from_config(config)


@cache
def _mirrored(devices: tuple[str, ...]) -> Any:  # noqa: ANN401 - tensorflow is untyped
    # One per process: those of a second one count their exchanges from the start again, and meet the first one's.
    return tf.distribute.MirroredStrategy(devices)
