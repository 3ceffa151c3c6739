"""Trains the same small network on one device and on two logical CPUs, and prints both curves: for tests.

A process of its own, because TensorFlow lets nobody make logical devices once it has begun.
"""

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from service.image import ImageSpec
from training import gradient, learning_rates, scratch
from training.augmentation import Augmentation
from training.batches import Batches
from training.checkpoint import Checkpoint, State
from training.progress import Phases
from training.settings import Settings
from training.split import Split
from training.task import Epoch, Task, kept
from training.twin import Placement

_EPOCHS = 4
_SIDE_PX = 16
_TASK = Task((), np.zeros(0, np.intp), (), ("a", "b", "c"), Split((), (), (), ()), ImageSpec(_SIDE_PX), 0)


class _Interrupted(Checkpoint):
    """Ends the training after the given epoch."""

    after = -1

    def save(self, state: State) -> None:
        super().save(state)
        if state.epochs[-1].number == self.after:
            raise KeyboardInterrupt


def main() -> None:
    """One line of JSON: the curves by name, [loss, validation loss, validation accuracy] per epoch."""
    both = tuple(f"CPU:{number}" for number in range(2))
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one, two = Placement(), Placement(both)
    curves = {
        "one": _train(_plain, one),
        "two": _train(_plain, two),
        "resumed": _train(_plain, two, interrupt=2),
        "scratch, two": _train(_basic, two),
    }
    sys.stdout.write(json.dumps(curves) + "\n")


def _plain() -> keras.Model:
    """Neither BatchNorm nor dropout: two devices compute what one does, but for rounding."""
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3, activation="relu")]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, name="head")]
    return keras.Sequential([keras.Input((_SIDE_PX, _SIDE_PX, 3), dtype="uint8"), *layers])


def _basic() -> keras.Model:
    return scratch._network(_SIDE_PX, 3, 0)[0]


def _train(build: object, placement: Placement, interrupt: int = -1) -> list[list[float | None]]:
    """Augmentation, class weights, a schedule, 23 images in batches of 4: the last batch has an odd one."""
    random = np.random.default_rng(0)
    labels = np.array([0, 0, 0, 0, 1, 1, 2] * 5)[:35]
    pixels = random.integers(0, 150, (35, _SIDE_PX, _SIDE_PX, 3)).astype(np.uint8)
    pixels[np.arange(35), :, :, labels] += 100
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path("x"), models=Path(), name="x", cache=Path(folder), run_folder=Path(folder))

        def fit(after: int) -> tuple[list[Epoch], keras.Model]:
            keras.utils.set_random_seed(1)
            model = build()
            weights = gradient.class_weights(labels[:23], 3)
            train = Batches(
                lambda at: pixels[at], np.arange(23), labels, 3, 4, seed=0, augmentation=Augmentation(),
                smoothing=0.1, class_weights=weights, multiple_of=placement.replicas,
            )  # fmt: skip
            checkpoint = _Interrupted(_TASK, settings, Console(quiet=True), placement.describe())
            checkpoint.after = after
            rate = learning_rates.warm_cosine(0.02)
            curve = gradient.fit(
                model, train, validation, Phases(Console(quiet=True)), epochs=_EPOCHS, schedule=rate,
                optimizer=lambda trained: learning_rates.optimizer(trained, {}), checkpoint=checkpoint,
                placement=placement,
            )  # fmt: skip
            return curve, model

        validation = Batches(lambda at: pixels[at], np.arange(23, 35), labels, 3, 4)
        if interrupt >= 0:
            with contextlib.suppress(KeyboardInterrupt):
                fit(interrupt)
        curve, model = fit(-1)
        best = kept(curve)
        # The model that came back, on one device, is that of the best epoch.
        logits = model(pixels[23:], training=False).numpy()
        accuracy = float(np.mean(logits.argmax(axis=1) == labels[23:]))
        assert abs(accuracy - best.validation_accuracy) < 1e-6
    return [[epoch.train_loss, epoch.validation_loss, epoch.validation_accuracy] for epoch in curve]


if __name__ == "__main__":
    main()
