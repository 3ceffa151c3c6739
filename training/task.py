"""What is to be learnt, and what learning gives back: the values that every strategy takes and returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.image import ImageSpec
from training.calibration import Labels, Logits
from training.dataset import Image
from training.split import Split


@dataclass(frozen=True)
class Task:
    """Labelled images, split.

    Attributes:
        images: all of them.
        labels: class number per image.
        groups: images of one group show the same picture, or were said to stay together.
        class_names: by number.
        split: positions in images.
        spec: how pixels are made.
        seed: of everything random.
    """

    images: Sequence[Image]
    labels: Labels
    groups: Sequence[int]
    class_names: Sequence[str]
    split: Split
    spec: ImageSpec
    seed: int

    @property
    def classes(self) -> int:
        """C."""
        return len(self.class_names)

    def pick(self, positions: Sequence[int]) -> list[Image]:
        """The images at these positions."""
        return [self.images[position] for position in positions]


@dataclass(frozen=True)
class Epoch:
    """One pass of gradient training; epoch 0 is before the first.

    Attributes:
        number: from 0.
        train_loss: mean over the epoch, in nats; None for epoch 0.
        validation_loss: after the epoch and temperature scaling, in nats.
        validation_accuracy: after the epoch.
        train_accuracy: mean over the epoch; None for epoch 0.
        beats_start: whether it could be kept and its validation loss is below that of epoch 0, by as much as the
            training asks.
    """

    number: int
    train_loss: float | None
    validation_loss: float
    validation_accuracy: float
    train_accuracy: float | None = None
    beats_start: bool = False


def kept(epochs: Sequence[Epoch]) -> Epoch:
    """The epoch whose weights are kept: of those that beat the start the one of the lowest loss, or else the start."""
    better = [epoch for epoch in epochs if epoch.beats_start]
    return min(better, key=lambda epoch: epoch.validation_loss, default=epochs[0])


@dataclass(frozen=True)
class Tried:
    """One candidate that was considered on the way.

    Attributes:
        candidate: in words.
        validation_accuracy: of images that it was not fitted on.
        seconds: that trying it took.
        images: that the accuracy is of.
        parameters: how many numbers were fitted.
    """

    candidate: str
    validation_accuracy: float
    seconds: float
    images: int
    parameters: int


@dataclass(frozen=True)
class Decision:
    """How `auto` came to its strategy.

    Attributes:
        size: "large" or "small", the data.
        domain: "similar" or "different", to what the backbone was trained on.
        rule: how these two were decided, with the numbers.
        reason: why the winner won, in one sentence.
        fine_tuning: whether it was tried, and why or why not.
        budget_s: seconds that might be spent.
        spent_s: seconds that were.
        logme: by depth, first to last.
    """

    size: str
    domain: str
    rule: str
    reason: str
    fine_tuning: str
    budget_s: float
    spent_s: float
    logme: Mapping[str, float]


@dataclass(frozen=True)
class Trained:
    """What a strategy returns.

    Attributes:
        model: keras.Model, images uint8 [N,S,S,3] -> calibrated scores float32 [N,C].
        held_out: positions of the images behind `scores`.
        scores: what the model says of images that it was not fitted on: float32 [len(held_out),C].
        temperature: folded into the model.
        unknown_threshold: see calibration.
        trained_parameters: how many numbers were fitted.
        hyperparameters: by name, for the manifest.
        tried: candidates that were considered, best first.
        epochs: of gradient training; empty for a strategy without.
        strategy: what `auto` chose; empty where the strategy was asked for by name.
        decision: of `auto`; None likewise.
    """

    model: Any
    held_out: Sequence[int]
    scores: Logits
    temperature: float
    unknown_threshold: float
    trained_parameters: int
    hyperparameters: dict[str, str]
    tried: Sequence[Tried] = field(default=())
    epochs: Sequence[Epoch] = field(default=())
    strategy: str = ""
    decision: Decision | None = None

    def held_out_labels(self, task: Task) -> NDArray[np.intp]:
        """Class number of each held-out image."""
        return task.labels[list(self.held_out)]
