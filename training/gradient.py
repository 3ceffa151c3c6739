"""Gradient training with early stopping, whatever is trained: the last blocks, a whole network, or one from scratch."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training import calibration
from training.calibration import Labels, Logits
from training.progress import Phases
from training.task import Epoch

Load = Callable[[NDArray[np.intp]], NDArray[Any]]
"""Positions [N] to what the model reads, [N, ...]."""

_AHEAD: Final = 4


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of a data set that is loaded as it is read, two batches at a time, at most four ahead.

    Args:
        load: from positions to the model's input; called from threads.
        positions: what belongs to this data set.
        labels: class number by position.
        size: images per batch.
        seed: shuffles anew in each epoch; None keeps the order.
    """

    def __init__(
        self, load: Load, positions: NDArray[np.intp], labels: Labels, size: int, seed: int | None = None
    ) -> None:
        super().__init__(workers=2, use_multiprocessing=False, max_queue_size=_AHEAD)
        self._load, self._labels, self._size = load, labels, size
        self._random = None if seed is None else np.random.default_rng(seed)
        self._positions = positions.copy()
        self.on_epoch_end()

    def __len__(self) -> int:
        return math.ceil(len(self._positions) / self._size)

    def __getitem__(self, number: int) -> tuple[NDArray[Any], Labels]:
        some = self._positions[number * self._size : (number + 1) * self._size]
        return self._load(some), self._labels[some]

    def on_epoch_end(self) -> None:
        """Shuffles."""
        if self._random is not None:
            self._random.shuffle(self._positions)


def fit(
    model: Any,  # noqa: ANN401 - keras is untyped
    train: Batches,
    validation: Batches,
    phases: Phases,
    *,
    epochs: int,
    learning_rate: float,
    patience: int,
) -> list[Epoch]:
    """Trains with Adam until validation no longer improves, and leaves the model with its best weights.

    The weights that it came with count: when no epoch beats them on validation loss, they are what it keeps.

    Args:
        model: returns logits; what of it is trainable is trained.
        train: shuffled.
        validation: decides.
        phases: shows the progress.
        epochs: at most.
        learning_rate: Adam's, constant.
        patience: epochs without improvement before it stops.

    Returns:
        What happened, from epoch 0: before training.
    """
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # On CPUs XLA is slow: MobileNetV2 runs at 5 images/s with it and at 79 without (batch 32, two cores).
        jit_compile="auto" if _has_gpu() else False,
    )
    with phases.phase("training") as advance:
        loss, accuracy = model.evaluate(validation, verbose=0)
        best = _Best(model, Epoch(0, None, loss, accuracy), patience, phases, lambda done: advance(done, steps))
        steps = epochs * len(train)
        model.fit(train, validation_data=validation, epochs=epochs, verbose=0, callbacks=[best])
        model.set_weights(best.weights)
    return best.epochs


def held_out_scores(
    model: Any,  # noqa: ANN401 - keras is untyped
    validation: Batches,
    labels: Labels,
) -> tuple[float, float, Logits]:
    """Temperature, unknown threshold and calibrated scores float32 [N,C] of the validation images.

    Args:
        model: returns logits.
        validation: in order.
        labels: of the same images.
    """
    logits = model.predict(validation, verbose=0)
    temperature = calibration.temperature(logits, labels)
    scores = calibration.softmax(logits / temperature)
    return temperature, calibration.unknown_threshold(scores, labels), scores


def memmap_loader(file: Path, shape: tuple[int, ...], scale: float) -> Load:
    """A loader of float16 rows from a file; returns them as float32, multiplied by `scale`."""
    rows: NDArray[np.float16] = np.memmap(file, np.float16, "r", shape=shape)
    return lambda positions: rows[positions].astype(np.float32) * np.float32(scale)


class _Best(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the best weights and the curve, tells how far it is, and stops when patience ends."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - keras is untyped
        before: Epoch,
        patience: int,
        phases: Phases,
        advance: Callable[[int], None],
    ) -> None:
        super().__init__()
        self.epochs = [before]
        self.weights = model.get_weights()
        self._best = before
        self._patience = patience
        self._phases = phases
        self._advance = advance
        self._steps = 0
        self._tell(before)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ANN401, ARG002 - Keras' signature
        self._steps += 1
        self._advance(self._steps)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ANN401 - Keras' signature
        now = Epoch(epoch + 1, logs["loss"], logs["val_loss"], logs["val_accuracy"])
        self.epochs.append(now)
        self._tell(now)
        if now.validation_loss < self._best.validation_loss:
            self._best, self.weights = now, self.model.get_weights()
        elif now.number - self._best.number >= self._patience or not np.isfinite(now.validation_loss):
            self.model.stop_training = True

    def _tell(self, epoch: Epoch) -> None:
        train = "" if epoch.train_loss is None else f"loss {epoch.train_loss:.4f}, "
        self._phases.console.print(
            f"epoch {epoch.number:<16} {train}validation loss {epoch.validation_loss:.4f}, "
            f"accuracy {epoch.validation_accuracy:.4f}"
        )


def _has_gpu() -> bool:
    import tensorflow as tf  # noqa: PLC0415 - only to ask

    return bool(tf.config.list_physical_devices("GPU"))
