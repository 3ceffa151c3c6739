"""The forward pass of a frozen graph over many images: on the GPU by TensorFlow, on CPU hosts by OpenVINO.

OpenVINO computes in float32 here, whatever the CPU could do faster, so that what is cached does not depend on who
computed it (MobileNetV2: at most 2.5e-5 apart, of features up to 13). In the same minutes on two busy cores TensorFlow
ran at 51 images/s in batches of 32, OpenVINO at 134, for 0.9 s of reading and compiling (docs/decisions.md).
"""

import tempfile
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.image import Pixels
from training import graph, quiet

Forward = Callable[[Pixels], NDArray[np.float32]]
"""uint8 [N,S,S,3] -> float32 [N, ...]."""

FEWEST_FOR_OPENVINO: Final = 64
"""Below that many images reading and compiling costs more than it saves."""


def build(model: Any, images: int) -> Forward:  # noqa: ANN401 - keras is untyped
    """The fastest way to run a Keras model in inference mode.

    Args:
        model: images uint8 [N,S,S,3] -> float32 [N, ...]; its weights as they are now.
        images: how many will be run.
    """
    function = graph.frozen(model)
    if images >= FEWEST_FOR_OPENVINO and not tf.config.list_physical_devices("GPU"):
        try:
            return openvino(function, tuple(model.inputs[0].shape[1:]), tuple(model.outputs[0].shape[1:]))
        # OpenVINO's own errors are RuntimeErrors: an operation it does not know. The others: no room to save the graph.
        except (ImportError, RuntimeError, OSError, tf.errors.OpError):
            pass
    return lambda pixels: np.asarray(graph.run(function, pixels), np.float32)


def openvino(function: Any, shape: tuple[int, ...], output: tuple[int, ...]) -> Forward:  # noqa: ANN401 - tensorflow is untyped
    """Runs a frozen function on all cores by OpenVINO, float32, one image per request.

    One image per request is as fast as several (134 images/s; 121 with 4, 113 with 8), and no batch is odd.

    Args:
        function: images uint8 [N,S,S,3] -> [float32 [N, ...]].
        shape: S, S, 3.
        output: of one image.

    Raises:
        ImportError: OpenVINO is not installed.
        RuntimeError: OpenVINO cannot run this graph.
    """
    ov = quiet.import_openvino()
    core = ov.Core()
    with tempfile.TemporaryDirectory(prefix="graft-forward-") as folder:
        signature = [tf.TensorSpec([None, *shape], tf.uint8, name="images")]
        served = tf.function(lambda images: {"features": tf.identity(function(images)[0])}, input_signature=signature)
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)  # as in training/export.py
        tf.saved_model.save(tf.Module(), folder, signatures={"serving_default": served}, options=options)
        read = core.read_model(folder)
        read.reshape({read.inputs[0]: ov.PartialShape([1, *shape])})
        compiled = core.compile_model(
            read, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
        )
    queue = ov.AsyncInferQueue(compiled)
    rows: NDArray[np.float32] = np.empty((0, *output), np.float32)

    def keep(request: Any, row: int) -> None:  # noqa: ANN401 - openvino is untyped
        rows[row] = request.get_output_tensor(0).data[0]

    queue.set_callback(keep)

    def forward(pixels: Pixels) -> NDArray[np.float32]:
        nonlocal rows
        rows = np.empty((len(pixels), *output), np.float32)
        for row in range(len(pixels)):
            queue.start_async([pixels[row : row + 1]], row)
        queue.wait_all()
        return rows

    return forward
