"""Gradient training with early stopping, whatever is trained: the last blocks, a whole network, or one from scratch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training import calibration
from training.augmentation import Augmentation
from training.batches import Batches, Load
from training.calibration import Labels, Logits
from training.checkpoint import Checkpoint, State
from training.errors import DataError
from training.progress import Phases
from training.scalars import Scalars
from training.settings import Settings
from training.task import Epoch, Task, Trained
from training.twin import Twin, choose_precision

_BALANCED: Final = 1.5


@dataclass(frozen=True)
class Recipe:
    """How a strategy trains by gradients.

    Attributes:
        epochs: at most.
        learning_rate: as asked for.
        patience: epochs without improvement before it stops.
        optimizer: makes one for a model, given all the steps there may be.
        augmentation: of each picture in each epoch, or None.
        smoothing: share of the target that is spread over all classes.
        described: what else the manifest's hyperparameters say.
        starts_from: what the model starts from, by name; a checkpoint of another start is not used.
    """

    epochs: int
    learning_rate: float
    patience: int
    optimizer: Callable[[Any, int], Any]
    augmentation: Augmentation | None = None
    smoothing: float = 0.0
    described: Mapping[str, str] = field(default_factory=dict)
    starts_from: Mapping[str, str] = field(default_factory=dict)


def train(
    task: Task,
    settings: Settings,
    phases: Phases,
    recipe: Recipe,
    *,
    model: Any,  # noqa: ANN401 - keras is untyped
    whole: Any,  # noqa: ANN401
    head: Any,  # noqa: ANN401
    load: Load,
) -> Trained:
    """Trains a model on the train split, stops by the validation split, and calibrates on it.

    Args:
        task: what to learn.
        settings: strategy, batch size, precision, run folder.
        phases: shows the progress.
        recipe: how.
        model: keras.Model, what `load` gives -> logits; what of it is trainable is trained.
        whole: keras.Model, images uint8 [N,S,S,3] -> logits; shares its layers with `model`.
        head: the last layer of both.
        load: reads what `model` takes; positions count train and validation images, in this order.
    """
    used = task.split.train + task.split.validation
    labels, images = task.labels[list(used)], len(task.split.train)
    weights, precision = class_weights(labels[:images], task.classes), choose_precision(settings.precision)
    validation = Batches(load, np.arange(images, len(used)), labels, task.classes, settings.batch_size)
    training = Batches(
        load,
        np.arange(images),
        labels,
        task.classes,
        settings.batch_size,
        seed=task.seed,
        augmentation=recipe.augmentation,
        smoothing=recipe.smoothing,
        class_weights=weights,
    )
    curve = fit(
        model,
        training,
        validation,
        phases,
        epochs=recipe.epochs,
        optimizer=lambda trained: recipe.optimizer(trained, recipe.epochs * len(training)),
        patience=recipe.patience,
        checkpoint=Checkpoint(task, settings, phases.console, {**recipe.starts_from, "precision": precision}),
        precision=precision,
        tensorboard=settings.tensorboard,
    )
    temperature, threshold, scores = held_out_scores(model, validation, labels[images:])
    head.set_weights([weight / temperature for weight in head.get_weights()])
    return Trained(
        model=keras.Model(whole.input, keras.layers.Softmax(name="scores")(whole.output)),
        held_out=task.split.validation,
        scores=scores,
        temperature=temperature,
        unknown_threshold=threshold,
        trained_parameters=sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
        hyperparameters={
            "epochs": str(recipe.epochs),
            "batch_size": str(settings.batch_size),
            "learning_rate": f"{recipe.learning_rate:g}",
            "patience": str(recipe.patience),
            **({} if recipe.augmentation is None else {"augmentation": str(recipe.augmentation)}),
            **({} if not recipe.smoothing else {"label_smoothing": f"{recipe.smoothing:g}"}),
            **recipe.described,
            **describe_weights(weights),
            "precision": precision,
        },
        epochs=curve,
    )


def require_validation(task: Task, settings: Settings) -> None:
    """Raises DataError where there are no validation images to stop by."""
    if not task.split.validation:
        raise DataError(f"--strategy {settings.strategy} stops by validation images; there are none")


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
    precision: str = "float32",
    tensorboard: Path | None = None,
) -> list[Epoch]:
    """Trains until validation no longer improves, and leaves the model with its best weights.

    The weights that it came with count: when no epoch beats them on validation loss, they are what it keeps. Goes on
    from the checkpoint where there is one, and ends as if it had never been interrupted. Where there is a deadline it
    ends when another epoch would not fit, and in the midst of the first one if need be. Validation is always of the
    model itself, in float32, whatever it is trained in: of what will be exported.

    Args:
        model: returns logits; what of it is trainable is trained.
        train: shuffled.
        validation: decides.
        phases: shows the progress.
        epochs: at most.
        optimizer: makes one for a model.
        patience: epochs without improvement before it stops.
        checkpoint: what an interrupted run has left; replaced after each epoch.
        precision: in which gradients are computed.
        tensorboard: folder for TensorBoard's logs; None for no such.

    Returns:
        What happened, from epoch 0: before training.
    """
    twin = Twin(model, precision)
    if twin.model is not model:
        _compile(model)
    _compile(twin.model, optimizer(twin.model))
    twin.model.optimizer.build(twin.model.trainable_variables)
    steps = epochs * len(train)
    with phases.phase("training") as advance, Scalars(tensorboard) as scalars:
        progress = _Progress(twin, phases, lambda done: advance(done, steps), scalars, most=epochs, patience=patience)
        saved = checkpoint.load(progress.state())
        if saved is None:
            progress.add(Epoch(0, None, *model.evaluate(validation, verbose=0)))
        else:
            progress.go_on(saved)
        while not progress.finished:
            # One epoch per `fit`: within one, Keras' threads load batches ahead of the epoch that they are told of.
            epoch, before_s = progress.epochs[-1].number, phases.left_s
            train.start(epoch)
            loss, accuracy = _one_epoch(twin, train, progress)
            twin.give_back()
            held_out_loss, held_out_accuracy = model.evaluate(validation, verbose=0)
            progress.add(Epoch(epoch + 1, loss, held_out_loss, held_out_accuracy, accuracy))
            # never true without a deadline: infinity less infinity is not a number
            progress.finished |= before_s - phases.left_s > phases.left_s
            checkpoint.save(progress.state())
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


def _compile(model: Any, optimizer: Any = "sgd") -> None:  # noqa: ANN401 - keras is untyped
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
        # On CPUs XLA is slow: MobileNetV2 runs at 5 images/s with it and at 79 without (batch 32, two cores).
        jit_compile="auto" if tf.config.list_physical_devices("GPU") else False,
    )


def _one_epoch(twin: Twin, train: Batches, progress: "_Progress") -> tuple[float, float]:
    """Trains for one epoch; returns its mean loss and accuracy."""
    epoch = progress.epochs[-1].number
    told = twin.model.fit(
        train,
        initial_epoch=epoch,
        epochs=epoch + 1,
        shuffle=False,  # Keras would shuffle the batches too, by a random state that no checkpoint has
        verbose=0,
        callbacks=[progress],
    )
    return float(told.history["loss"][0]), float(told.history["accuracy"][0])


class _Progress(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the best weights and the curve, tells how far it is, and stops when patience ends."""

    def __init__(
        self,
        twin: Twin,
        phases: Phases,
        advance: Callable[[int], None],
        scalars: Scalars,
        *,
        most: int,
        patience: int,
    ) -> None:
        super().__init__()
        self.epochs: list[Epoch] = []
        self.best_weights = twin.model.get_weights()
        self.finished = False
        self._twin = twin
        self._most, self._patience = most, patience
        self._phases = phases
        self._advance = advance
        self._scalars = scalars

    def state(self) -> State:
        """All that going on from here takes."""
        model = self._twin.model
        variables = [variable.numpy() for variable in model.variables]
        optimizer = [variable.numpy() for variable in model.optimizer.variables]
        return State(self.epochs, variables, optimizer, self.best_weights, self.finished)

    def go_on(self, saved: State) -> None:
        """Makes the model, its optimizer and this what they were."""
        model = self._twin.model
        for variables, values in ((model.variables, saved.model), (model.optimizer.variables, saved.optimizer)):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self.epochs, self.best_weights, self.finished = list(saved.epochs), list(saved.best), saved.finished
        self.tell(f"going on after epoch {self.epochs[-1].number}, where an earlier run was interrupted")

    def add(self, epoch: Epoch) -> None:
        """After an epoch, and before the first."""
        self.epochs.append(epoch)
        self._scalars.add(epoch)
        best = min(self.epochs, key=lambda one: one.validation_loss if np.isfinite(one.validation_loss) else np.inf)
        if epoch is best:
            self.best_weights = self._twin.model.get_weights()
        patient = epoch.number - best.number < self._patience and np.isfinite(epoch.validation_loss)
        self.finished = not patient or epoch.number == self._most
        train = "" if epoch.train_loss is None else f"loss {epoch.train_loss:.4f}, "
        self.tell(
            f"epoch {epoch.number:<16} {train}validation loss {epoch.validation_loss:.4f}, "
            f"accuracy {epoch.validation_accuracy:.4f}"
        )

    def tell(self, line: str) -> None:
        """Prints a line."""
        self._phases.console.print(line)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ANN401, ARG002 - Keras' signature
        self._advance(self.epochs[-1].number * self.params["steps"] + batch + 1)
        if self._phases.left_s < 0:
            self.model.stop_training = True
