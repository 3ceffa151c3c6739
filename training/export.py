"""Writes the SavedModel of a version directory, with its signatures, and what TensorFlow Serving warms it up with.

    serving_default         images: uint8[N,S,S,3]  ->  scores: float32[N,C]
    serving_bytes           image_bytes: string[N]  ->  classes: string[N,C], scores: float32[N,C]
    class_activation_maps   images: uint8[N,S,S,3]  ->  maps: float32[N,h,w,C], where the head allows it

`serving_default` is what Graft serves. `serving_bytes` is for stock TensorFlow Serving: it repeats service.image.decode
with TensorFlow's operations as well as these can (no EXIF orientation, no WebP, no TIFF, transparency dropped);
`parity` measures how far apart the two are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from protos.manifest_pb2 import ClassActivationMaps, ServingBytesParity
from service.image import ImageSpec, Pixels
from service.version import WARMUP
from training import activation, graph

_METHOD: Final = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos3", "box": "area"}
_MAPS: Final = "class_activation_maps"


def write_saved_model(
    scores: Any,  # noqa: ANN401 - tensorflow is untyped
    class_names: Sequence[str],
    spec: ImageSpec,
    folder: Path,
) -> tuple[Any, ClassActivationMaps | None]:
    """Writes saved_model.pb and what belongs to it.

    The weights are constants of the graph, see training/graph.py; variables/ is there and empty.

    Args:
        scores: frozen function, images uint8 [N,S,S,3] -> scores float32 [N,C].
        class_names: in the order of the scores.
        spec: what `serving_bytes` imitates.
        folder: the version directory.

    Returns:
        The function behind `serving_bytes`, and what the manifest says of class activation maps.
    """
    side = spec.side_px
    exposed = activation.expose(scores)
    # one function behind all signatures, so that the weights are written once
    scores = exposed or scores
    labels = tf.constant(list(class_names))

    @tf.function(input_signature=[tf.TensorSpec([None, side, side, 3], tf.uint8, name="images")])  # type: ignore[untyped-decorator]
    def serving_default(images: graph.Tensor) -> dict[str, graph.Tensor]:
        return {"scores": tf.identity(scores(images)[0])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])  # type: ignore[untyped-decorator]
    def serving_bytes(image_bytes: graph.Tensor) -> dict[str, graph.Tensor]:
        images = tf.map_fn(lambda one: _decode(one, spec), image_bytes, fn_output_signature=tf.uint8)
        result = scores(tf.ensure_shape(images, [None, side, side, 3]))[0]
        return {"classes": tf.broadcast_to(labels, tf.shape(result)), "scores": result}

    signatures = {"serving_default": serving_default, "serving_bytes": serving_bytes}
    maps = None
    if exposed:

        @tf.function(input_signature=serving_default.input_signature, autograph=False)  # type: ignore[untyped-decorator]
        def class_activation_maps(images: graph.Tensor) -> dict[str, graph.Tensor]:
            return {"maps": activation.maps(exposed(images))}

        signatures[_MAPS] = class_activation_maps
        _, height, width, _ = class_activation_maps.get_concrete_function().outputs[0].shape
        maps = ClassActivationMaps(signature=_MAPS, height=height, width=width)
    # Nobody differentiates what is served, and swish (EfficientNet) has a gradient of its own that cannot be saved when
    # its weights are constants.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(tf.Module(), str(folder), signatures=signatures, options=options)
    return serving_bytes, maps


def write_warmup(pixels: Pixels, name: str, folder: Path) -> None:
    """Writes the request that TensorFlow Serving sends itself after loading.

    Args:
        pixels: uint8 [S,S,3].
        name: of the model.
        folder: the version directory.
    """
    request = PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = "serving_default"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(pixels[np.newaxis]))
    with tf.io.TFRecordWriter(str(folder / WARMUP)) as writer:
        writer.write(PredictionLog(predict_log=PredictLog(request=request)).SerializeToString())


def parity(
    serving_bytes: Any,  # noqa: ANN401 - tensorflow is untyped
    files: Sequence[bytes],
    pixels: Pixels,
    scores: NDArray[np.float32],
    spec: ImageSpec,
) -> ServingBytesParity | None:
    """Compares `serving_bytes` with the model behind the real decode.

    Args:
        serving_bytes: from `write_saved_model`.
        files: image files.
        pixels: the same, by service.image.decode, uint8 [N,S,S,3].
        scores: the model's, of these pixels, float32 [N,C].
        spec: how they were decoded.

    Returns:
        The differences, or None when TensorFlow reads none of these files.
    """
    pixel_differences, score_differences = [], []
    for file, seen, expected in zip(files, pixels, scores, strict=True):
        try:
            answered = serving_bytes(tf.constant([file]))["scores"].numpy()
            imitated = _decode(tf.constant(file), spec).numpy().astype(np.int16)
        except tf.errors.InvalidArgumentError:
            continue
        pixel_differences.append(np.abs(imitated - seen).mean())
        score_differences.append(np.abs(answered[0] - expected).max())
    if not pixel_differences:
        return None
    return ServingBytesParity(
        mean_pixel_difference=float(np.mean(pixel_differences)), max_score_difference=float(np.max(score_differences))
    )


def _decode(file: graph.Tensor, spec: ImageSpec) -> graph.Tensor:
    """One file's bytes to uint8 [S,S,3], as service.image.decode does it, but for what the module names."""
    image = tf.io.decode_image(file, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    if spec.resize == "crop":
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        edge = tf.minimum(height, width)
        image = tf.image.crop_to_bounding_box(image, (height - edge) // 2, (width - edge) // 2, edge, edge)
    resized = tf.image.resize(image, [spec.side_px] * 2, method=_METHOD[spec.resample], antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
