"""The batches that gradient training reads: loaded as they are read, the same whoever reads them and however often."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training.augmentation import Augmentation
from training.calibration import Labels

Load = Callable[[NDArray[np.intp]], NDArray[Any]]
"""Positions [N] to what the model reads, [N, ...]."""

_AHEAD: Final = 4


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


def memmap_loader(file: Path, shape: tuple[int, ...], scale: float) -> Load:
    """A loader of float16 rows from a file; returns them as float32, multiplied by `scale`."""
    rows: NDArray[np.float16] = np.memmap(file, np.float16, "r", shape=shape)
    return lambda positions: rows[positions].astype(np.float32) * np.float32(scale)
