"""The exported directory is the trained model, for Graft's engines and for stock TensorFlow Serving alike."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import openvino as ov
import pytest
import tensorflow as tf
from google.protobuf import json_format
from PIL import Image as Pillow
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from protos.manifest_pb2 import Goldens
from service.image import ImageSpec, decode
from service.version import GOLDENS, WARMUP
from training import backbones, export, goldens, graph
from training.task import Task

# NumPy 2 about TensorFlow, in Keras' own code
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

_CLASSES = ("blue", "green", "red")
_SPEC = ImageSpec(32)


@dataclass(frozen=True)
class Exported:
    """A small model with random weights, and where it was exported to."""

    model: object
    folder: Path
    serving_bytes: object
    written: goldens.Written
    images: list


@pytest.fixture(scope="module")
def exported(make_task: Callable[[int], Task], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The model, exported with goldens and warm-up."""
    keras.utils.set_random_seed(0)
    features = backbones.load(backbones.find("MobileNet:0.25"), "none", _SPEC.side_px).features()
    # EfficientNet's swish has a gradient of its own, which a SavedModel with constant weights cannot hold.
    hidden = keras.layers.Dense(16, activation="swish")(features.output)
    model = keras.Model(features.input, keras.layers.Dense(3, activation="softmax")(hidden))
    folder = tmp_path_factory.mktemp("version")
    frozen = graph.frozen(model)
    serving_bytes, _ = export.write_saved_model(frozen, _CLASSES, _SPEC, folder)
    images = make_task(_SPEC.side_px).images[::10]
    written = goldens.write(images, lambda pixels: graph.run(frozen, pixels), _SPEC, folder)
    export.write_warmup(written.pixels[0], "pets", folder)
    return Exported(model, folder, serving_bytes, written, list(images))


def test_serving_default_is_the_keras_model(exported: Exported):
    """uint8 pixels in, float32 scores out, for any N; the scores are those of the Keras model."""
    loaded = tf.saved_model.load(str(exported.folder))
    signature = loaded.signatures["serving_default"]
    (spec,) = signature.structured_input_signature[1].values()
    assert (spec.name, spec.dtype, spec.shape.as_list()) == ("images", tf.uint8, [None, 32, 32, 3])
    for count in (1, 3):
        pixels = exported.written.pixels[:count]
        scores = signature(images=tf.constant(pixels))["scores"]
        assert (scores.dtype, scores.shape.as_list()) == (tf.float32, [count, 3])
        np.testing.assert_allclose(scores.numpy(), exported.model(pixels, training=False).numpy(), atol=1e-5)


def test_openvino_reads_it(exported: Exported):
    """The same SavedModel in OpenVINO gives the same scores: the engine of CPU hosts."""
    model = ov.Core().read_model(exported.folder)
    assert [port.any_name for port in (*model.inputs, *model.outputs)] == ["images", "scores"]
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled(exported.written.pixels)[0], exported.written.scores, atol=1e-4)


def test_serving_bytes_answers_with_class_names(exported: Exported):
    """Encoded files in, one row of class names and scores per file, in the order of the classes."""
    answer = tf.saved_model.load(str(exported.folder)).signatures["serving_bytes"](
        image_bytes=tf.constant(exported.written.files)
    )
    assert answer["classes"].numpy().tolist() == [[name.encode() for name in _CLASSES]] * len(exported.images)
    assert np.abs(answer["scores"].numpy() - exported.written.scores).max() < 0.05


def _gradient(width: int, height: int) -> bytes:
    """A PNG whose colours rise smoothly, so that a shifted or missing resize shows."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    stream = io.BytesIO()
    Pillow.fromarray(np.stack([across, down, 255 - across], axis=-1).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos", "box"])
def test_serving_bytes_imitates_the_decode(resize: str, resample: str):
    """TensorFlow's decode and resize is within a few grey levels of the real one, for each resize and filter."""
    spec = ImageSpec(32, resize, resample)
    file = _gradient(150, 90)
    imitated = export._decode(tf.constant(file), spec).numpy().astype(int)
    assert np.abs(imitated - decode(file, spec)).mean() < (4 if resample == "box" else 1)


def test_parity_is_measured(exported: Exported):
    """The numbers are those of the files: nothing for files of the right size, more for others, None for none."""
    random = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Pillow.fromarray(random).save(stream, "PNG")
    files, pixels = [stream.getvalue()], random[None]
    scores = exported.model(pixels, training=False).numpy()
    same = export.parity(exported.serving_bytes, files, pixels, scores, _SPEC)
    assert same.mean_pixel_difference == 0
    assert same.max_score_difference < 1e-5
    written = exported.written
    real = export.parity(exported.serving_bytes, written.files, written.pixels, written.scores, _SPEC)
    assert 0 < real.mean_pixel_difference < 5
    assert export.parity(exported.serving_bytes, [b"not an image"], pixels, scores, _SPEC) is None


def test_goldens_are_files_pixels_and_scores(exported: Exported):
    """Each golden is the file itself, the service's own pixels of it, and the Keras model's scores of these."""
    folder = exported.folder / GOLDENS
    message = json_format.Parse((folder / "goldens.json").read_text(encoding="utf-8"), Goldens())
    assert [golden.label for golden in message.goldens] == [image.label for image in exported.images]
    for golden, image in zip(message.goldens, exported.images, strict=True):
        content = (folder / golden.image).read_bytes()
        assert content == image.path.read_bytes()
        pixels = np.asarray(Pillow.open(folder / golden.pixels))
        np.testing.assert_array_equal(pixels, decode(content, _SPEC))
        expected = exported.model(pixels[None], training=False).numpy()[0]
        np.testing.assert_allclose(golden.scores, expected, atol=1e-5)


def test_warm_up_is_a_request_for_tensorflow_serving(exported: Exported):
    """One PredictionLog with the first golden's pixels for serving_default."""
    (record,) = tf.data.TFRecordDataset(str(exported.folder / WARMUP)).as_numpy_iterator()
    request = PredictionLog.FromString(record).predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("pets", "serving_default")
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["images"])[0], exported.written.pixels[0])


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_goldens_cover_the_classes(make_task: Callable[[int], Task], classes: int):
    """5-10 images, of as many classes as fit, right and sure ones where there are any."""
    images = make_task(32).images
    labels = np.arange(len(images)) % classes
    scores = np.full((len(images), classes), 0.1 / classes, np.float32)
    wrong = np.arange(len(images)) % 5 == 0
    scores[np.arange(len(images)), np.where(wrong, (labels + 1) % classes, labels)] += 0.9
    chosen = goldens.choose(images, labels, scores)
    assert len(chosen) == len(set(chosen)) == {2: 5, 3: 6, 12: 10}[classes]
    assert len(set(labels[chosen])) == min(classes, 10)
    assert not wrong[chosen].any()
