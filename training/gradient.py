"""Gradient training with early stopping, whatever is trained: the last blocks, a whole network, or one from scratch."""

import math
import time
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
from training.learning_rates import Schedule
from training.progress import Advance, Phases
from training.scalars import Scalars
from training.settings import Settings
from training.task import Epoch, Task, Trained, kept
from training.twin import Placement, Twin, place

_BALANCED: Final = 1.5


@dataclass(frozen=True)
class Recipe:
    """How a strategy trains by gradients.

    Attributes:
        epochs: at most.
        learning_rate: the highest.
        schedule: the rate by how much of the training is done.
        optimizer: makes one for a model.
        patience: epochs without improvement before it stops, and keeps the best of them; None where a schedule comes to
            its end, and the last epoch is what is kept.
        augmentation: of each picture in each epoch, or None.
        smoothing: share of the target that is spread over all classes.
        margin: standard errors of the validation loss by which that epoch has to beat what the model came with.
        described: what else the manifest's hyperparameters say.
        starts_from: what the model starts from, by name; a checkpoint of another start is not used.
    """

    epochs: int
    learning_rate: float
    schedule: Schedule
    optimizer: Callable[[Any], Any]
    patience: int | None = None
    augmentation: Augmentation | None = None
    smoothing: float = 0.0
    margin: float = 0.0
    described: dict[str, str] = field(default_factory=dict)
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
    versions: NDArray[np.intp] | None = None,
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
        versions: of each training image, positions that `load` takes instead of its own, [V, train images].
    """
    used = task.split.train + task.split.validation
    labels, images = task.labels[list(used)], len(task.split.train)
    weights, placement = class_weights(labels[:images], task.classes), place(settings.precision)
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
        versions=versions,
        multiple_of=placement.replicas,
    )
    curve = fit(
        model,
        training,
        validation,
        phases,
        epochs=recipe.epochs,
        schedule=recipe.schedule,
        optimizer=recipe.optimizer,
        patience=recipe.patience,
        margin=recipe.margin,
        checkpoint=Checkpoint(task, settings, phases.console, {**recipe.starts_from, **placement.describe()}),
        placement=placement,
        tensorboard=settings.tensorboard,
    )
    temperature, threshold, scores = held_out_scores(model, validation)
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
            **({} if recipe.patience is None else {"patience": str(recipe.patience)}),
            **({} if recipe.augmentation is None else {"augmentation": str(recipe.augmentation)}),
            **({} if not recipe.smoothing else {"label_smoothing": f"{recipe.smoothing:g}"}),
            **recipe.described,
            **describe_weights(weights),
            **placement.describe(),
        },
        epochs=curve,
    )


def step_s(model: Any, batch_size: int) -> float:  # noqa: ANN401 - keras is untyped
    """Seconds that the gradient of one batch takes, measured without compiling.

    A step of training takes two thirds of that (MobileNetV2, two cores).

    Args:
        model: float32 [N, ...] -> logits.
        batch_size: N.
    """
    batch = tf.ones((batch_size, *model.input_shape[1:]))
    taken_s = 0.0
    for _ in range(2):  # the first makes ready
        start_s = time.monotonic()
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(batch))
        tape.gradient(loss, model.trainable_weights)[0].numpy()
        taken_s = time.monotonic() - start_s
    return taken_s


def require_validation(task: Task, settings: Settings) -> None:
    """Raises DataError where there are no validation images to stop by."""
    if not task.split.validation:
        raise DataError(
            f"--strategy {settings.strategy} stops by validation images; there are none (--validation-fraction)"
        )


def fit(
    model: Any,  # noqa: ANN401 - keras is untyped
    train: Batches,
    validation: Batches,
    phases: Phases,
    *,
    epochs: int,
    schedule: Schedule,
    optimizer: Callable[[Any], Any],
    checkpoint: Checkpoint,
    patience: int | None = None,
    margin: float = 0.0,
    placement: Placement = Placement(),  # noqa: B008 - frozen
    tensorboard: Path | None = None,
) -> list[Epoch]:
    """Trains until validation no longer improves and keeps the best epoch, or to the end of a schedule and keeps that.

    The weights that it came with count: when those do not beat them on validation loss by the margin, they are what it
    keeps. That is the loss after temperature scaling, as in what is exported: by the plain one an epoch that is more
    often right, and too sure of it, would lose. Goes on from the checkpoint where there is one, and ends as if it had
    never been interrupted. Where there is a deadline the schedule comes to its end by then. Validation is always of the
    model itself, in float32 on one device, wherever and however it is trained: of what will be exported.

    Args:
        model: returns logits; what of it is trainable is trained.
        train: shuffled.
        validation: decides.
        phases: shows the progress.
        epochs: at most.
        schedule: the rate by how much of the training is done: of all steps, or of the time to the deadline.
        optimizer: makes one for a model.
        checkpoint: what an interrupted run has left; replaced after each epoch.
        patience: see Recipe.
        margin: see Recipe.
        placement: where and in what precision gradients are computed.
        tensorboard: folder for TensorBoard's logs; None for no such.

    Returns:
        What happened, from epoch 0: before training.
    """
    twin, infer = Twin(model, placement), _inference(model)
    with twin.scope():
        _compile(twin.model, optimizer(twin.model))
        twin.model.optimizer.build(twin.model.trainable_variables)
    with phases.phase("training") as advance, Scalars(tensorboard) as scalars:
        progress = _Progress(twin, phases, advance, scalars, schedule, steps=epochs * len(train), patience=patience)
        judge = _Judge(infer(validation), validation.labels, margin)
        saved = checkpoint.load(progress.state())
        if saved is None:
            progress.add(judge.start, over=progress.over)
        else:
            progress.go_on(saved)
        progress.show()
        while not progress.finished:
            # One epoch per `fit`: within one, Keras' threads load batches ahead of the epoch that they are told of.
            epoch = progress.epochs[-1].number
            train.start(epoch)
            loss, accuracy = _one_epoch(twin, train, progress)
            twin.give_back()
            over = progress.over
            counts = over or patience is not None
            progress.add(judge.epoch(epoch + 1, infer(validation), loss, accuracy, counts=counts), over=over)
            checkpoint.save(progress.state())
            progress.show()
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
) -> tuple[float, float, Logits]:
    """Temperature, unknown threshold and calibrated scores float32 [N,C] of the validation images.

    Args:
        model: returns logits.
        validation: in order.
    """
    logits = _inference(model)(validation)
    temperature = calibration.temperature(logits, validation.labels)
    scores = calibration.softmax(logits / temperature)
    return temperature, calibration.unknown_threshold(scores, validation.labels), scores


def _inference(model: Any) -> Callable[[Batches], Logits]:  # noqa: ANN401 - keras is untyped
    """What a model says, with its weights at the time of the call: float32 [N,C]. `predict` might use XLA."""
    run = tf.function(lambda values: model(values, training=False), reduce_retracing=True)
    return lambda batches: np.concatenate([run(batches[number][0]).numpy() for number in range(len(batches))])


class _Judge:
    """Compares epochs with what the model came with, image by image.

    Args:
        logits: of what it came with, on the validation images.
        labels: of these.
        margin: see Recipe.
    """

    def __init__(self, logits: Logits, labels: Labels, margin: float) -> None:
        self._labels, self._margin = labels, margin
        self._before = self._losses(logits)
        self.start = Epoch(0, None, float(self._before.mean()), self._accuracy(logits))

    def epoch(self, number: int, logits: Logits, train_loss: float, train_accuracy: float, *, counts: bool) -> Epoch:
        """One that is over, and whether it beats the start, if it counts at all."""
        after = self._losses(logits)
        beats = counts and bool(np.isfinite(after).all()) and self._beats_start(after)
        return Epoch(number, train_loss, float(after.mean()), self._accuracy(logits), train_accuracy, beats)

    def _beats_start(self, after: Logits) -> bool:
        gains = self._before - after
        if not self._margin or len(gains) < 2:
            return float(gains.mean()) > 0
        return float(gains.mean()) > self._margin * float(gains.std(ddof=1)) / math.sqrt(len(gains))

    def _losses(self, logits: Logits) -> Logits:
        """In nats, [N], after temperature scaling; infinite where the logits are numbers that are none."""
        if not np.isfinite(logits).all():
            return np.full(len(logits), np.inf, np.float32)
        return calibration.log_losses(logits / calibration.temperature(logits, self._labels), self._labels)

    def _accuracy(self, logits: Logits) -> float:
        return float(np.mean(logits.argmax(axis=1) == self._labels))


def _compile(model: Any, optimizer: Any) -> None:  # noqa: ANN401 - keras is untyped
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
        # Keras has no XLA under op determinism anyway; without that, on CPUs, it is slow: MobileNetV2 runs at 5
        # images/s with it and at 79 without (batch 32, two cores).
        jit_compile=False,
    )


def _one_epoch(twin: Twin, train: Batches, progress: "_Progress") -> tuple[float, float]:
    """Trains for one epoch; returns its mean loss and accuracy."""
    epoch = progress.epochs[-1].number
    with twin.scope():
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
    """Sets the rate, keeps the best weights and the curve, tells how far it is, and says when it is over."""

    def __init__(
        self,
        twin: Twin,
        phases: Phases,
        advance: Advance,
        scalars: Scalars,
        schedule: Schedule,
        *,
        steps: int,
        patience: int | None,
    ) -> None:
        super().__init__()
        self.epochs: list[Epoch] = []
        self.best_weights = twin.model.get_weights()
        self.finished = False
        self._twin, self._schedule = twin, schedule
        self._steps, self._patience = steps, patience
        self._done = 0
        self._phases = phases
        self._paced_from: tuple[int, float] | None = None
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
        with self._twin.scope():
            for variables, values in ((model.variables, saved.model), (model.optimizer.variables, saved.optimizer)):
                for variable, value in zip(variables, values, strict=True):
                    variable.assign(value)
        self.epochs, self.best_weights, self.finished = list(saved.epochs), list(saved.best), saved.finished
        self.tell(f"going on after epoch {self.epochs[-1].number}, where an earlier run was interrupted")

    @property
    def over(self) -> bool:
        """Whether all steps were made, or all there was time for."""
        return self._share >= 1

    def add(self, epoch: Epoch, *, over: bool) -> None:
        """After an epoch, and before the first."""
        self.epochs.append(epoch)
        self._scalars.add(epoch)
        best = kept(self.epochs)
        if epoch is best:
            self.best_weights = self._twin.model.get_weights()
        patient = self._patience is None or epoch.number - best.number < self._patience
        self.finished = over or not patient or not math.isfinite(epoch.validation_loss)

    def show(self) -> None:
        """Says how the last epoch went: after its checkpoint, so that nothing is lost that was shown."""
        epoch = self.epochs[-1]
        train = "" if epoch.train_loss is None else f"loss {epoch.train_loss:.4f}, "
        self.tell(
            f"epoch {epoch.number:<16} {train}validation loss {epoch.validation_loss:.4f}, "
            f"accuracy {epoch.validation_accuracy:.4f}"
        )

    def tell(self, line: str) -> None:
        """Prints a line."""
        self._phases.console.print(line)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ANN401, ARG002 - Keras' signature
        self._done = self.epochs[-1].number * self.params["steps"] + batch
        self.model.optimizer.learning_rate = self._schedule(self._share)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ANN401, ARG002 - Keras' signature
        self._done += 1
        if self._paced_from is None:  # the first step compiles, and says nothing of the pace
            self._paced_from = self._done, self._phases.left_s
        self._advance(self._done, self._steps)
        if self.over:
            self.model.stop_training = True

    @property
    def _share(self) -> float:
        """Of the training that is done: of all steps, or of as many as there will be time for at the pace so far."""
        left_s = self._phases.left_s
        if left_s <= 0:
            return 1.0
        steps = float(self._steps)
        if self._paced_from is not None and math.isfinite(left_s):
            done, then_s = self._paced_from
            if self._done > done and then_s > left_s:
                steps = min(steps, self._done + left_s * (self._done - done) / (then_s - left_s))
        return self._done / steps
