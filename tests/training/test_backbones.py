"""Every family of keras.applications is found by name, with its own preprocessing, default side, weights and blocks."""

import inspect
from pathlib import Path

import keras
import numpy as np
import pytest

from training import backbones, graph
from training.errors import SettingError, WeightsUnavailable

# NumPy 2 about TensorFlow, in Keras' own code
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

_PIXELS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "module", "mode"),
    [
        ("VGG16", keras.applications.vgg16, "caffe: BGR, mean taken off"),
        ("MobileNetV2", keras.applications.mobilenet_v2, "tf: -1 to 1"),
        ("DenseNet121", keras.applications.densenet, "torch: 0 to 1, mean and deviation"),
        ("EfficientNetB0", keras.applications.efficientnet, "in the model itself"),
    ],
    ids=["caffe", "tf", "torch", "in-model"],
)
def test_preprocessing_in_the_graph_is_the_family_s_own(name: str, module: object, mode: str):
    """Pixels go into the network exactly as keras.applications' own preprocess_input has them."""
    family = backbones.find(name)
    images = keras.Input((32, 32, 3), dtype="uint8")
    backbone = backbones.Backbone(family, "none", 32, None, "")
    in_graph = graph.run(graph.frozen(keras.Model(images, backbone.prepare(images))), _PIXELS)
    expected = module.preprocess_input(_PIXELS.astype(np.float32))
    np.testing.assert_allclose(in_graph, expected, atol=1e-5)
    known = {
        "caffe": _PIXELS[..., ::-1] - np.array([103.939, 116.779, 123.68]),
        "tf": _PIXELS / 127.5 - 1,
        "torch": (_PIXELS / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "in": _PIXELS,
    }
    np.testing.assert_allclose(in_graph, known[mode.replace(":", " ").split()[0]], atol=1e-4)


def test_efficientnet_scales_in_its_model():
    """The in-model case has a layer that does it, so nothing is lost when preprocess_input does nothing."""
    network = backbones.load(backbones.find("EfficientNetB0"), "none", 32).network
    assert any(isinstance(layer, keras.layers.Rescaling) for layer in network.layers)


@pytest.mark.parametrize("spelling", ["MobileNetV2", "mobilenetv2", "mobilenet_v2", "Mobilenet-V2"])
def test_names_are_found_in_any_spelling(spelling: str):
    """Case, "_" and "-" do not matter."""
    assert backbones.find(spelling).name == "MobileNetV2"


def test_all_families_are_there():
    """VGG, ResNet, DenseNet, EfficientNet, ConvNeXt and the others are found, nothing else is."""
    names = backbones.names()
    assert {"VGG16", "ResNet50", "DenseNet121", "InceptionV3", "NASNetMobile", "ConvNeXtTiny", "Xception"} <= set(names)
    assert all("include_top" in inspect.signature(backbones.find(name).build).parameters for name in names)


def test_unknown_name_says_what_there_is():
    """A typo is answered with the nearest name and the list."""
    with pytest.raises(SettingError, match=r"VGG16.*did you mean.*VGG16"):
        backbones.find("vgg61")


def test_width_multiplier():
    """NAME:ALPHA reaches families that have one, and is refused for others."""
    assert backbones.load(backbones.find("MobileNet:0.25"), "none", 32).width == 256
    with pytest.raises(SettingError, match="no width multiplier"):
        backbones.find("VGG16:0.5")


@pytest.mark.parametrize("name", backbones.names())
def test_default_side_is_keras_own(name: str, monkeypatch: pytest.MonkeyPatch):
    """Our default side is the one that Keras would take for the network with its top."""

    class FoundError(Exception):
        pass

    def intercept(*_: object, default_size: int, **__: object) -> None:
        raise FoundError(default_size)

    monkeypatch.setattr("keras.src.applications.imagenet_utils.obtain_input_shape", intercept)
    family = backbones.find(name)
    if name.startswith("MobileNetV3"):  # takes any side; its weights are named for 224
        assert family.build(weights=None).input_shape[1] is None
        assert family.side_px == 224
        return
    with pytest.raises(FoundError) as found:
        family.build(weights=None)
    assert found.value.args == (family.side_px,)


def test_weights_file_loads_through_the_same_path(tmp_path: Path):
    """A file in Keras' own format, written here, gives the same network again."""
    family = backbones.find("MobileNet:0.25")
    keras.utils.set_random_seed(3)
    written = backbones.load(family, "none", 32)
    other = backbones.load(family, "none", 32)
    written.network.save_weights(tmp_path / "mine.weights.h5")
    loaded = backbones.load(family, str(tmp_path / "mine.weights.h5"), 32)
    assert loaded.weights == "mine.weights.h5"
    assert loaded.sha256 == written.sha256 != other.sha256


def test_weights_that_do_not_fit_are_refused(tmp_path: Path):
    """Another network's weights, no weights and no file: an error that says so."""
    backbones.load(backbones.find("MobileNet:0.5"), "none", 32).network.save_weights(tmp_path / "half.weights.h5")
    (tmp_path / "text.weights.h5").write_text("no weights")
    family = backbones.find("MobileNet:0.25")
    for file in ("half.weights.h5", "text.weights.h5"):
        with pytest.raises(SettingError, match=r"MobileNet with weights .* cannot be built"):
            backbones.load(family, str(tmp_path / file), 32)
    with pytest.raises(SettingError, match="found no file"):
        backbones.load(family, str(tmp_path / "missing.h5"), 32)


def test_failed_download_says_which_file_and_what_to_do(monkeypatch: pytest.MonkeyPatch):
    """Without a network the user learns which file Keras wanted, where it may be put, and the alternatives."""

    def fail(_name: str, url: str, **_: object) -> None:
        raise Exception(f"URL fetch failure on {url}: None -- [Errno -2] Name or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fail)
    monkeypatch.setenv("KERAS_HOME", "/somewhere")
    with pytest.raises(WeightsUnavailable) as error:
        backbones.load(backbones.find("ResNet50"), "imagenet")
    message = str(error.value)
    assert "Put resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5 into /somewhere/models" in message
    assert "--weights none" in message
    assert "Name or service not known" in message


@pytest.mark.parametrize(
    ("name", "count", "last"),
    [
        ("MobileNetV2:0.35", 17, "block_15_add"),
        ("ResNet50", 16, "conv5_block2_out"),
        ("VGG16", 4, "block4_pool"),
        ("NASNetMobile", 0, None),
    ],
)
def test_blocks_are_what_the_layers_names_say(name: str, count: int, last: str | None):
    """As many boundaries as there are blocks but one; a network that cannot be cut has none."""
    found = backbones.boundaries(backbones.load(backbones.find(name), "none", 64).network)
    assert len(found) == count
    assert (found[-1].name if found else None) == last


@pytest.mark.parametrize("name", ["MobileNetV2:0.35", "VGG16"])
def test_the_two_halves_of_a_cut_are_the_whole(name: str):
    """What comes after a boundary needs its output only: bottom, then top, gives the network's own features."""
    network = backbones.load(backbones.find(name), "none", 64).network
    images = np.random.default_rng(1).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    cut = backbones.boundaries(network)[-3]
    between = keras.Model(network.input, cut.output)(images, training=False)
    halves = keras.Model(cut.output, network.output)(between, training=False)
    np.testing.assert_allclose(halves.numpy(), network(images, training=False).numpy(), rtol=1e-4, atol=1e-5)


def test_imagenet_weights_come_from_keras_home(shared: Path, monkeypatch: pytest.MonkeyPatch):
    """What Keras' own code finds in its home folder is what the file there holds."""
    family = backbones.find("MobileNet:0.25")
    file = shared / "keras" / "models" / "mobilenet_2_5_128_tf_no_top.h5"
    expected = backbones.load(family, str(file), 128).sha256
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(shared / "keras"))
    assert backbones.load(family, "imagenet", 128).sha256 == expected
