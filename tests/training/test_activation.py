"""Class activation maps are exact: their mean over places is the logit, in every engine, whatever the head's depths."""

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from protos.classifier_pb2 import ClassifyRequest
from protos.classifier_pb2 import Image as GrpcImage
from protos.classifier_pb2_grpc import ImageClassifierStub
from protos.manifest_pb2 import Manifest
from service.engine import openvino, tensorflow
from service.engine.activation import ActivationMaps, combine, enlargement, share
from service.errors import NoActivationMap
from service.image import DECODE_VERSION, ImageSpec
from service.offline import OfflineClassifier
from service.version import SCHEMA_VERSION, Version, read_version, write_manifest
from tests.pictures import encode, with_orientation
from tests.running import Service
from training import activation, backbones, depths, export, goldens, graph, linear
from training.linear import LinearHead
from training.task import Task

# NumPy 2 about TensorFlow, in Keras' own code
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

_SIDE_PX = 64
_CLASSES = ("blue", "green", "red")


def _publishable(model: object, folder: Path, task: Task) -> Version:
    """A version directory as the trainer leaves it: SavedModel, goldens, manifest."""
    frozen = graph.frozen(model)
    _, maps = export.write_saved_model(frozen, _CLASSES, task.spec, folder)
    goldens.write(task.images[::12], lambda pixels: graph.run(frozen, pixels), task.spec, folder)
    manifest = Manifest(schema_version=SCHEMA_VERSION, name="pets", version=1, class_names=_CLASSES)
    manifest.image.side_px, manifest.image.decode_version = task.spec.side_px, DECODE_VERSION
    manifest.image.resize, manifest.image.resample = task.spec.resize, task.spec.resample
    if maps is not None:
        manifest.class_activation_maps.CopyFrom(maps)
    write_manifest(folder, manifest)
    return read_version(folder)


def _head(rows: int) -> LinearHead:
    kernel = np.random.default_rng(0).normal(size=(rows, len(_CLASSES))).astype(np.float32)
    bias, nobody = np.array([0.3, -0.2, 0.1], np.float32), np.empty((0, 3), np.float32)
    return LinearHead(kernel, bias, 1.0, 1.0, 0.0, nobody, np.ones(0, bool), ())


@pytest.fixture(scope="module")
def version(make_task: Callable[[int], Task], tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A head on six depths of four sizes, 16 to 2, of a small backbone with random weights."""
    keras.utils.set_random_seed(0)
    backbone = backbones.load(backbones.find("MobileNet:0.25"), "none", _SIDE_PX)
    layers = depths.choose(backbone)
    features = depths.model(backbone, layers)
    pixels = np.random.default_rng(1).integers(0, 256, (8, _SIDE_PX, _SIDE_PX, 3)).astype(np.uint8)
    widths = depths.widths(backbone, layers)
    head = _head(sum(widths))
    # untrained activations are tiny; the head makes up for it
    pooled = np.split(features(pixels, training=False).numpy(), np.cumsum(widths)[:-1], axis=1)
    sizes = np.repeat([10 * np.abs(one).max() for one in pooled], widths)
    scaled = replace(head, kernel=(head.kernel / sizes[:, None]).astype("f4"))
    folder = tmp_path_factory.mktemp("deep") / "pets" / "1"
    return _publishable(linear.join(backbone, scaled, layers), folder, make_task(_SIDE_PX))


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """One picture of noise, so that every place differs."""
    return np.random.default_rng(2).integers(0, 256, (1, _SIDE_PX, _SIDE_PX, 3)).astype(np.uint8)


def _softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def both(version: Version) -> dict[str, object]:
    """Either runtime with the version loaded."""
    with pytest.MonkeyPatch.context() as patch:
        # this process has used TensorFlow already
        patch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", lambda _: None)
        patch.setattr(tf.config.threading, "set_inter_op_parallelism_threads", lambda _: None)
        theirs = tensorflow.Loaded(version, "tensorflow/f32", 1)
    return {
        "openvino": openvino.Loaded(version, "openvino/f32", 1),
        "tensorflow": theirs,
    }


def test_the_manifest_says_how(version: Version):
    """Signature and size of the largest depth."""
    said = version.manifest.class_activation_maps
    assert (said.signature, said.height, said.width) == ("class_activation_maps", 16, 16)


@pytest.mark.parametrize("engine", ["openvino", "tensorflow"])
def test_the_mean_over_places_is_the_logit(both: dict, pixels: np.ndarray, engine: str):
    """Softmax of the maps' means is what the same engine answers; and the maps are not flat."""
    maps = both[engine].class_activation_maps()(pixels)
    assert maps.shape == (1, 16, 16, 3)
    assert maps.std(axis=(1, 2)).min() > 0.01
    np.testing.assert_allclose(_softmax(maps.mean(axis=(1, 2))), both[engine].predict(pixels), atol=1e-5)


def test_engines_agree_place_by_place(both: dict, pixels: np.ndarray):
    """OpenVINO, which finds the head in its graph, says what the exported signature says."""
    ours, theirs = (both[engine].class_activation_maps()(pixels) for engine in ("openvino", "tensorflow"))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_maps_cost_no_second_copy_of_the_weights(version: Version):
    """The SavedModel with three signatures is not much larger than the weights, which are 218,544 numbers."""
    size = (version.path / "saved_model.pb").stat().st_size
    assert 1 < size / (4 * 218_544) < 1.5


def test_a_wrong_map_is_never_shown(version: Version, both: dict, pixels: np.ndarray):
    """A runtime whose maps do not add up to the goldens' scores is refused, and says so."""

    class Wrong:
        made = 0

        def class_activation_maps(self):
            self.made += 1
            return lambda pixels: 2 * both["openvino"].class_activation_maps()(pixels)

    wrong = ActivationMaps(version, Wrong())
    for _ in range(2):
        with pytest.raises(NoActivationMap, match="not proven to add up"):
            wrong.prepare()
    assert wrong._runtime.made == 1
    right = ActivationMaps(version, both["openvino"])
    assert not right.ready
    right.prepare()
    assert right.ready
    seen = right.map(pixels[0], 1)
    assert (seen.shape, seen.min() >= 0, seen.max()) == ((16, 16), True, 1)


@pytest.mark.parametrize(("small", "large"), [(1, 7), (2, 16), (7, 28), (5, 8), (8, 17), (17, 35), (9, 9)])
def test_enlarging_keeps_the_mean_and_what_is_flat(small: int, large: int):
    """For any two sizes; and it keeps the order of places: a rising row rises."""
    weights = enlargement(small, large)
    row = np.random.default_rng(small).normal(size=small)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose((weights @ row).mean(), row.mean(), atol=1e-5)
    assert (np.diff(weights @ np.arange(small)) >= -1e-6).all()


def test_combine_is_the_definition():
    """Against loops over places, classes and depths of equal size."""
    random = np.random.default_rng(3)
    features = [random.normal(size=(1, 2, 3, depth)) for depth in (4, 5)]
    kernel, bias = random.normal(size=(9, 2)), random.normal(size=2)
    got = combine(features, kernel, bias)
    for row, column, label in np.ndindex(2, 3, 2):
        here = np.concatenate([one[0, row, column] for one in features])
        assert got[0, row, column, label] == pytest.approx(bias[label] + here @ kernel[:, label], abs=1e-5)


def test_share_sees_no_more_than_the_softmax():
    """What is added to all classes alike changes nothing; what speaks against a class is 0; the most is 1."""
    maps = np.array([[[2.0, 0], [0, 2]], [[1, 0], [0, 0]]], np.float32)
    expected = [[1, 0], [0.5, 0]]
    np.testing.assert_allclose(share(maps, 0), expected)
    np.testing.assert_allclose(
        share(maps + 5 * np.random.default_rng(0).normal(size=(2, 2, 1)), 0), expected, atol=1e-5
    )
    assert share(np.zeros((2, 2, 2), np.float32), 0).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("end", ["max", "norm", "hidden", "place"])
def test_no_maps_where_they_would_not_be_exact(end: str):
    """Max pooling, something between pooling and head, a hidden layer, one place only."""
    layers = keras.layers
    images = keras.Input((16, 16, 3), dtype="uint8", name="images")
    x = layers.Conv2D(4, 3, strides=16 if end == "place" else 4, padding="same")(keras.ops.cast(images, "float32"))
    x = (layers.GlobalMaxPooling2D if end == "max" else layers.GlobalAveragePooling2D)()(x)
    x = layers.LayerNormalization()(x) if end == "norm" else x
    x = layers.Dense(4, activation="relu")(x) if end == "hidden" else x
    scores = layers.Softmax()(layers.Dense(3)(x))
    assert activation.expose(graph.frozen(keras.Model(images, scores))) is None


def _colours() -> object:
    """Its feature maps are how blue, green and red each place is, 8 x 8 of them: no weight is learnt or random."""
    layers = keras.layers
    images = keras.Input((_SIDE_PX, _SIDE_PX, 3), dtype="uint8", name="images")
    contrast = layers.Conv2D(3, 8, strides=8, use_bias=False, activation="relu")
    head = layers.Dense(3, activation="softmax")
    x = contrast(keras.ops.cast(images, "float32"))
    model = keras.Model(images, head(layers.GlobalAveragePooling2D()(x)))
    mixed = (1.5 * np.eye(3) - 0.5)[:, ::-1] / (255 * 64)
    contrast.set_weights([np.broadcast_to(mixed, (8, 8, 3, 3)).astype(np.float32)])
    head.set_weights([20 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    return model


@pytest.fixture(scope="module")
def colours(make_task: Callable[[int], Task], tmp_path_factory: pytest.TempPathFactory) -> Version:
    """The model of colours, with the crop that is the trainer's default."""
    task = make_task(_SIDE_PX)
    assert task.spec == ImageSpec(_SIDE_PX)
    cropped = Task(
        task.images, task.labels, task.groups, task.class_names, task.split, ImageSpec(_SIDE_PX, "crop"), task.seed
    )
    return _publishable(_colours(), tmp_path_factory.mktemp("colours") / "pets" / "1", cropped)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_planted_object_is_found_where_it_is(colours: Version, orientation: int):
    """A red square in a corner of the middle square: the map covers it, and its region is in upright pixels."""
    stored = Image.new("RGB", (600, 320), (90, 90, 90))
    stored.paste((230, 20, 20), (140 + 40, 40, 140 + 120, 120))  # the crop is 140 to 460; cells are 40 px
    with OfflineClassifier(colours.path, "openvino/f32") as classifier:
        (result,) = classifier.classify([with_orientation(stored, orientation)], activation_map=True)
        (plain,) = classifier.classify([encode(stored)])
    assert (result.label, result.error.code) == ("red", "")
    assert not plain.HasField("activation_map")
    region = result.activation_map.region_px
    upright = {1: (140, 0), 3: (140, 0), 6: (0, 140)}[orientation]
    assert (region.left, region.top, region.width, region.height) == (*upright, 320, 320)
    values = np.reshape(result.activation_map.values, (result.activation_map.height, result.activation_map.width))
    expected = np.zeros((8, 8))
    expected[1:3, 1:3] = 1
    expected = {1: expected, 3: expected[::-1, ::-1], 6: np.rot90(expected, -1)}[orientation]
    np.testing.assert_allclose(values, expected, atol=0.1)


def test_both_protocols_answer_with_the_map(
    colours: Version, tmp_path: Path, start_service: Callable[..., Service]
) -> None:
    """Asked for, rows of numbers and a rectangle over HTTP, the same over gRPC; a bad image spoils no other."""
    (tmp_path / "models" / "pets").mkdir(parents=True)
    shutil.copytree(colours.path, tmp_path / "models" / "pets" / "1")
    service = start_service(tmp_path / "models", engine="openvino/f32")
    picture = Image.new("RGB", (101, 80), (90, 90, 90))
    picture.paste((20, 20, 230), (20, 10, 40, 30))
    images = [encode(picture), b"no image", encode(picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM))]
    body = json.dumps({"images": [{"b64": base64.b64encode(one).decode()} for one in images]})
    answer = service.classify(body, "?activation_map=1", "application/json")
    upper, bad, lower = answer.json["results"]
    assert (answer.status, upper["label"], bad["error"]["code"]) == (200, "blue", "UNSUPPORTED_FORMAT")
    assert upper["activation_map"]["region_px"] == {"left": 10.5, "top": 0, "width": 80, "height": 80}
    values = np.array(upper["activation_map"]["values"])
    assert values.shape == (8, 8)
    assert np.argwhere(values == 1)[0].tolist() in ([1, 1], [1, 2], [2, 1], [2, 2])
    np.testing.assert_allclose(values, np.array(lower["activation_map"]["values"])[::-1], atol=0.1)
    with grpc.insecure_channel(service.grpc) as channel:
        request = ClassifyRequest(images=[GrpcImage(data=images[0])], activation_map=True)
        (result,) = ImageClassifierStub(channel).Classify(request, timeout=60).results
    np.testing.assert_allclose(np.reshape(result.activation_map.values, (8, 8)), values, atol=1e-4)
    assert "activation_map" not in service.classify(images[0]).json["results"][0]
