"""Matrices of features that need not fit into memory: float32 rows, in a file without a name where they are many.

Owns where the rows lie and how much of them is mapped at a time. Such a matrix is a NumPy array like any other; whoever
goes through all of it calls `release` now and then, so that what was read does not stay in the process.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

IN_MEMORY_BYTES: Final = 64 << 20
"""A larger matrix lies in a file; 12,800 images with the 1,280 features of MobileNetV2."""

_CHUNK_BYTES: Final = 4 << 20


def empty(rows: int, width: int, folder: Path) -> Matrix:
    """A matrix to be filled.

    Args:
        rows: N.
        width: D.
        folder: where the file lies, made if need be; it has no name and goes with the process, however that ends.

    Raises:
        OSError: the disk is too full. (Without reserving the space, writing to it would kill the process.)
    """
    size = 4 * rows * width
    if size <= IN_MEMORY_BYTES:
        return np.empty((rows, width), np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(prefix=".matrix-", dir=folder) as stream:
        os.posix_fallocate(stream.fileno(), 0, size)
        return np.memmap(stream, np.float32, "r+", shape=(rows, width))


def release(matrix: Matrix) -> None:
    """Takes what is mapped of a matrix in a file out of the process's memory; it is read again when it is asked for."""
    owner: object = matrix
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


def chunks(count: int, width: int) -> Iterator[slice]:
    """Consecutive parts of `count` rows of `width` float32, 4 MiB each."""
    size = max(1, _CHUNK_BYTES // (4 * width))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
