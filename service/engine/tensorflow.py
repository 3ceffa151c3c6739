"""TensorFlow: the runtime for GPU hosts, and for any SavedModel that OpenVINO does not read."""

import os
from collections.abc import Callable

# read when TensorFlow is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.engine.runtime import Scores
from service.image import Pixels
from service.version import Version


class Loaded:
    """A version's `serving_default` on the GPU where there is one, else on the CPU.

    On a GPU every batch is padded to a power of two, so that only a few shapes are ever compiled; they are run once
    here, before the first request.

    Raises:
        RuntimeError: it should be `only_on_gpu`, and TensorFlow finds none.
    """

    def __init__(self, version: Version, name: str, threads: int, *, only_on_gpu: bool = False) -> None:
        self.name = name
        gpus = tf.config.list_physical_devices("GPU")
        if only_on_gpu and not gpus:
            raise RuntimeError("this host has a GPU that TensorFlow cannot use; are the CUDA libraries installed?")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        if not gpus:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        self.max_batch = 32 if gpus else 4
        self.host_threads = 1
        self._pads = bool(gpus)
        self._maps_signature = version.manifest.class_activation_maps.signature
        self._model = tf.saved_model.load(version.path)  # keeps the variables alive
        self._signature = self._model.signatures["serving_default"]
        side, size = version.spec.side_px, 1
        while size <= self.max_batch:
            self._signature(images=tf.zeros([size, side, side, 3], tf.uint8))
            size *= 2

    def predict(self, pixels: Pixels, *, whole_host: bool = False) -> Scores:  # noqa: ARG002 - it has one way only
        """uint8 [N, S, S, 3] -> float32 [N, C]."""
        images = tf.constant(pixels)
        if self._pads:
            padding = (1 << (len(pixels) - 1).bit_length()) - len(pixels)
            images = tf.pad(images, [[0, padding], [0, 0], [0, 0], [0, 0]])
        scores: Scores = self._signature(images=images)["scores"].numpy()
        return scores[: len(pixels)]

    def class_activation_maps(self) -> Callable[[Pixels], NDArray[np.float32]]:
        """uint8 [1, S, S, 3] -> float32 [1, h, w, C], by the version's own signature for it."""
        signature = self._model.signatures[self._maps_signature]

        def maps(pixels: Pixels) -> NDArray[np.float32]:
            computed: NDArray[np.float32] = signature(images=tf.constant(pixels))["maps"].numpy()
            return computed

        return maps
