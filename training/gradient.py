"""Gradient training with early stopping, whatever is trained: the last blocks, a whole network, or one from scratch."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training import calibration
from training.augmentation import Augmentation
from training.calibration import Labels, Logits
from training.checkpoint import Checkpoint, State
from training.progress import Phases
from training.task import Epoch

Load = Callable[[NDArray[np.intp]], NDArray[Any]]
"""Positions [N] to what the model reads, [N, ...]."""

_AHEAD: Final = 4
_BALANCED: Final = 1.5


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of a data set that is loaded as it is read, two batches at a time, at most four ahead.

    Order and augmentation of an epoch follow from the seed and the epoch's number alone, so that an epoch is the same
    whether or not the ones before it were trained in this process.

    Args:
        load: from positions to the model's input; called from threads.
        positions: what belongs to this data set.
        labels: class number by position.
        classes: C.
        size: images per batch.
        seed: shuffles anew in each epoch; None keeps the order.
        augmentation: changes each picture anew in each epoch; None changes none.
        smoothing: share of the target that is spread over all classes.
        class_weights: of each class in the loss; None weighs all alike.
    """

    def __init__(
        self,
        load: Load,
        positions: NDArray[np.intp],
        labels: Labels,
        classes: int,
        size: int,
        *,
        seed: int | None = None,
        augmentation: Augmentation | None = None,
        smoothing: float = 0.0,
        class_weights: NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__(workers=2, use_multiprocessing=False, max_queue_size=_AHEAD)
        self._load, self._labels, self._size, self._seed = load, labels, size, seed
        self._augmentation = augmentation
        self._targets = (1 - smoothing) * np.eye(classes, dtype=np.float32) + np.float32(smoothing / classes)
        self._weights = np.ones(classes, np.float32) if class_weights is None else class_weights
        self._all = positions
        self.start(0)

    def start(self, epoch: int) -> None:
        """Makes this the epoch with that number."""
        self._epoch, self._order = epoch, self._all
        if self._seed is not None:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self._all)

    def __len__(self) -> int:
        return math.ceil(len(self._all) / self._size)

    def __getitem__(self, number: int) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        some = self._order[number * self._size : (number + 1) * self._size]
        loaded, labels = self._load(some), self._labels[some]
        if self._augmentation is not None:
            loaded = np.stack([self._augmented(one, int(at)) for one, at in zip(loaded, some, strict=True)])
        return loaded, self._targets[labels], self._weights[labels]

    def _augmented(self, picture: NDArray[Any], position: int) -> NDArray[Any]:
        assert self._augmentation is not None  # noqa: S101 - the only caller has looked
        return self._augmentation.apply(picture, np.random.default_rng([self._seed or 0, self._epoch, position]))


def fit(
    model: Any,  # noqa: ANN401 - keras is untyped
    train: Batches,
    validation: Batches,
    phases: Phases,
    *,
    epochs: int,
    optimizer: Callable[[Any], Any],
    patience: int,
    checkpoint: Checkpoint,
) -> list[Epoch]:
    """Trains until validation no longer improves, and leaves the model with its best weights.

    The weights that it came with count: when no epoch beats them on validation loss, they are what it keeps. Goes on
    from the checkpoint where there is one, and ends as if it had never been interrupted.

    Args:
        model: returns logits; what of it is trainable is trained.
        train: shuffled.
        validation: decides.
        phases: shows the progress.
        epochs: at most.
        optimizer: makes one for a model.
        patience: epochs without improvement before it stops.
        checkpoint: what an interrupted run has left; replaced after each epoch.

    Returns:
        What happened, from epoch 0: before training.
    """
    model.compile(
        optimizer=optimizer(model),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
        # On CPUs XLA is slow: MobileNetV2 runs at 5 images/s with it and at 79 without (batch 32, two cores).
        jit_compile="auto" if _has_gpu() else False,
    )
    model.optimizer.build(model.trainable_variables)
    steps = epochs * len(train)
    with phases.phase("training") as advance:
        progress = _Progress(
            model, phases, checkpoint, lambda done: advance(done, steps), most=epochs, patience=patience
        )
        saved = checkpoint.load(progress.state(model))
        if saved is None:
            loss, accuracy = model.evaluate(validation, verbose=0)
            progress.add(Epoch(0, None, loss, accuracy), model)
        else:
            progress.go_on(model, saved)
        while not progress.finished:
            # One epoch per `fit`: within one, Keras' threads load batches ahead of the epoch that they are told of.
            epoch = progress.epochs[-1].number
            train.start(epoch)
            model.fit(
                train,
                validation_data=validation,
                initial_epoch=epoch,
                epochs=epoch + 1,
                shuffle=False,  # Keras would shuffle the batches too, by a random state that no checkpoint has
                verbose=0,
                callbacks=[progress],
            )
        model.set_weights(progress.best_weights)
    return progress.epochs


def class_weights(labels: Labels, classes: int) -> NDArray[np.float32] | None:
    """Weights that let every class count alike, 1 on average; None where the largest is at most 1.5 times the smallest.

    Args:
        labels: of the images to train on; every class occurs.
        classes: C.
    """
    counts = np.bincount(labels, minlength=classes)
    if counts.max() <= _BALANCED * counts.min():
        return None
    return np.asarray(len(labels) / (classes * counts), np.float32)


def describe_weights(weights: NDArray[np.float32] | None) -> dict[str, str]:
    """For the manifest."""
    return {} if weights is None else {"class_weights": ", ".join(f"{weight:.3g}" for weight in weights)}


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


class _Progress(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the best weights and the curve, tells how far it is, saves each epoch, and stops when patience ends."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - keras is untyped
        phases: Phases,
        checkpoint: Checkpoint,
        advance: Callable[[int], None],
        *,
        most: int,
        patience: int,
    ) -> None:
        super().__init__()
        self.epochs: list[Epoch] = []
        self.best_weights = model.get_weights()
        self.finished = False
        self._most, self._patience = most, patience
        self._phases = phases
        self._checkpoint = checkpoint
        self._advance = advance

    def state(self, model: Any) -> State:  # noqa: ANN401 - keras is untyped
        """All that going on from here takes."""
        variables = [variable.numpy() for variable in model.variables]
        optimizer = [variable.numpy() for variable in model.optimizer.variables]
        return State(self.epochs, variables, optimizer, self.best_weights, self.finished)

    def go_on(self, model: Any, saved: State) -> None:  # noqa: ANN401 - keras is untyped
        """Makes the model, its optimizer and this what they were."""
        for variables, values in ((model.variables, saved.model), (model.optimizer.variables, saved.optimizer)):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self.epochs, self.best_weights, self.finished = list(saved.epochs), list(saved.best), saved.finished
        self._phases.console.print(
            f"going on after epoch {self.epochs[-1].number}, where an earlier run was interrupted"
        )

    def add(self, epoch: Epoch, model: Any) -> None:  # noqa: ANN401 - keras is untyped
        """After an epoch, and before the first."""
        self.epochs.append(epoch)
        best = min(self.epochs, key=lambda one: one.validation_loss if np.isfinite(one.validation_loss) else np.inf)
        if epoch is best:
            self.best_weights = model.get_weights()
        patient = epoch.number - best.number < self._patience and np.isfinite(epoch.validation_loss)
        self.finished = not patient or epoch.number == self._most
        train = "" if epoch.train_loss is None else f"loss {epoch.train_loss:.4f}, "
        self._phases.console.print(
            f"epoch {epoch.number:<16} {train}validation loss {epoch.validation_loss:.4f}, "
            f"accuracy {epoch.validation_accuracy:.4f}"
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ANN401, ARG002 - Keras' signature
        self._advance(self.epochs[-1].number * self.params["steps"] + batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ANN401 - Keras' signature
        now = Epoch(epoch + 1, float(logs["loss"]), float(logs["val_loss"]), float(logs["val_accuracy"]))
        self.add(now, self.model)
        self._checkpoint.save(self.state(self.model))


def _has_gpu() -> bool:
    import tensorflow as tf  # noqa: PLC0415 - only to ask

    return bool(tf.config.list_physical_devices("GPU"))
