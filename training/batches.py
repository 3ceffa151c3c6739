"""The batches that gradient training reads: loaded as they are read, the same whoever reads them and however often."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.augmentation import Augmentation
from training.calibration import Labels
from training.pixels import THREADS

Load = Callable[[NDArray[np.intp]], NDArray[Any]]
"""Positions [N] to what the model reads, [N, ...]."""


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of a data set that is loaded as it is read, a few batches ahead.

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
        versions: rows that `load` takes for these positions, [V,N], which are 0 to N-1 then; one of the V is drawn for
            each of them in each epoch. None takes the positions as they are.
        multiple_of: fills up the last batch to such a number of images, with copies that weigh nothing.
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
        versions: NDArray[np.intp] | None = None,
        multiple_of: int = 1,
    ) -> None:
        # With more than one worker MirroredStrategy gets the batches in another order (Keras 3.15): it asks twice.
        super().__init__(workers=1)
        self._load, self._labels, self._size, self._seed = load, labels, size, seed
        self._augmentation = augmentation
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="augment")
        self._targets = (1 - smoothing) * np.eye(classes, dtype=np.float32) + np.float32(smoothing / classes)
        self._weights = np.ones(classes, np.float32) if class_weights is None else class_weights
        self._all, self._versions, self._multiple_of = positions, versions, multiple_of
        self.start(0)

    @property
    def labels(self) -> Labels:
        """Class number of each, in the order of `positions`."""
        return self._labels[self._all]

    def start(self, epoch: int) -> None:
        """Makes this the epoch with that number."""
        self._epoch, self._order = epoch, self._all
        random = np.random.default_rng([self._seed or 0, epoch])
        if self._seed is not None:
            self._order = random.permutation(self._all)
        self._rows = np.arange(len(self._labels))
        if self._versions is not None:
            version = random.integers(len(self._versions), size=len(self._all))
            self._rows = self._versions[version, np.arange(len(self._all))]

    def __len__(self) -> int:
        return math.ceil(len(self._all) / self._size)

    def __getitem__(self, number: int) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        some = self._order[number * self._size : (number + 1) * self._size]
        loaded, labels = self._load(self._rows[some]), self._labels[some]
        if self._augmentation is not None:
            loaded = np.stack(list(self._threads.map(self._augmented, loaded, some)))
        weights = self._weights[labels]
        missing = -len(some) % self._multiple_of
        if missing:
            # Devices share a batch evenly, and the loss is a mean over all of it: what is there weighs more instead.
            weights = weights * np.float32((len(some) + missing) / len(some))
            weights = np.append(weights, np.zeros(missing, np.float32))
            again = np.arange(len(weights)) % len(some)
            loaded, labels = loaded[again], labels[again]
        return loaded, self._targets[labels], weights

    def _augmented(self, picture: NDArray[Any], position: np.intp) -> NDArray[Any]:
        assert self._augmentation is not None  # noqa: S101 - the only caller has looked
        return self._augmentation.apply(picture, np.random.default_rng([self._seed or 0, self._epoch, int(position)]))


def memmap_loader(file: Path, shape: tuple[int, ...], scale: float) -> Load:
    """A loader of float16 rows from a file; returns them as float32, multiplied by `scale`."""
    rows: NDArray[np.float16] = np.memmap(file, np.float16, "r", shape=shape)
    return lambda positions: rows[positions].astype(np.float32) * np.float32(scale)
