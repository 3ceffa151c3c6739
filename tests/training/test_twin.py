"""Where and in what precision gradients are computed changes neither what is learnt nor what is exported."""

import io
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from training import gradient, learning_rates, twin
from training.batches import Batches
from training.checkpoint import State
from training.progress import Phases
from training.task import Epoch
from training.twin import Placement

# NumPy 2 about TensorFlow, in Keras' own code
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

_ROOT = Path(__file__).resolve().parents[2]


class _Nothing:
    """A checkpoint that keeps nothing."""

    def load(self, _like: State) -> None:
        return None

    def save(self, _state: State) -> None:
        pass


def _fit(model: keras.Model, placement: Placement, said: io.StringIO | None = None) -> list[Epoch]:
    labels = np.arange(24) % 2
    pixels = np.random.default_rng(0).integers(0, 150, (24, 8, 8, 3)).astype(np.uint8)
    pixels[labels == 1, :, :, 0] += 100
    train = Batches(lambda at: pixels[at], np.arange(16), labels, 2, 8, seed=0)
    validation = Batches(lambda at: pixels[at], np.arange(16, 24), labels, 2, 8)
    return gradient.fit(
        model, train, validation, Phases(Console(file=said or io.StringIO())), epochs=3, checkpoint=_Nothing(),
        schedule=learning_rates.constant(0.05), optimizer=lambda _: keras.optimizers.Adam(), placement=placement,
    )  # fmt: skip


def _model(*more: keras.Layer) -> keras.Model:
    keras.utils.set_random_seed(1)
    images = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.ops.cast(images, "float32") / 255
    for layer in (keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(trainable=False), *more):
        x = layer(x)
    return keras.Model(images, keras.layers.Dense(2, name="head")(keras.layers.GlobalAveragePooling2D()(x)))


def test_two_devices_learn_what_one_does():
    """The same curve but for rounding, resumed too; BatchNorm and dropout, which see halves, can be trained as well."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.two_devices"], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    curves = json.loads(done.stdout)
    assert len(curves["one"]) == 5
    two, one = np.array(curves["two"][1:]), np.array(curves["one"][1:])
    np.testing.assert_allclose(two[:, 1:], one[:, 1:], rtol=1e-4)
    # In what Keras says of an epoch's loss a last batch counts as many images as it was filled up to.
    np.testing.assert_allclose(two[:, 0], one[:, 0], rtol=0.05)
    assert curves["resumed"] == curves["two"]
    assert np.isfinite([loss for loss, _, _ in curves["scratch, two"][1:]]).all()


def test_mixed_precision_leaves_a_float32_model():
    """The copy computes in bfloat16 and learns; the model has its weights, float32 and partly frozen as before."""
    model = _model()
    held = model.layers[3].get_weights()
    made = twin.Twin(model, Placement(precision="bfloat16"))
    kinds = {layer.name: layer.compute_dtype for layer in made.model.layers if layer.weights}
    assert kinds.pop("head") == "float32"
    assert set(kinds.values()) == {"bfloat16"}
    assert [weight.path for weight in made.model.trainable_weights] == [w.path for w in model.trainable_weights]
    curve = _fit(model, Placement(precision="bfloat16"))
    assert curve[-1].validation_loss < curve[0].validation_loss
    assert {layer.compute_dtype for layer in model.layers if layer.weights} == {"float32"}
    for before, after in zip(held, model.layers[3].get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    plain = _fit(_model(), Placement())
    assert curve[-1].validation_loss == pytest.approx(plain[-1].validation_loss, rel=0.1)
    assert curve != plain


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([], Placement()),
        ([(7, 5)], Placement()),
        ([(9, 0)], Placement((), "bfloat16")),
        ([(9, 0), (8, 0)], Placement(("GPU:0", "GPU:1"), "bfloat16")),
        ([(9, 0), (7, 5)], Placement(("GPU:0", "GPU:1"), "float32")),
    ],
)
def test_the_hosts_gpus_decide(
    capabilities: list[tuple[int, int]], expected: Placement, monkeypatch: pytest.MonkeyPatch
):
    """None: as it was. One: bfloat16 from Ampere on. Several: all of them, in what all of them can."""
    gpus = [tf.config.PhysicalDevice(f"GPU:{number}", "GPU") for number in range(len(capabilities))]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _kind: gpus)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda _kind: gpus)
    details = dict(zip(gpus, capabilities, strict=True))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": details[gpu]})
    assert twin.place("auto") == expected
    assert twin.place("float32").precision == "float32"
