"""Linear models fitted to more features than memory should hold: every pass reads the rows chunk by chunk.

The objectives are scikit-learn's own (LogisticRegression, LinearSVC with the primal problem), so their solutions are
too; what scikit-learn cannot do is to leave the rows where they are. L-BFGS is SciPy's.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from training import matrix
from training.matrix import Matrix

Rows = NDArray[np.intp]
Labels = NDArray[np.intp]
Loss = Callable[[Matrix, Labels], tuple[float, Matrix]]
"""Logits [n,K] and class numbers [n] to the sum of the losses and its gradient by the logits [n,K]."""

Said = TypeVar("Said")

_THREADS: Final = min(8, os.cpu_count() or 1)
_TOLERANCE: Final = 1e-4
_LONGEST: Final = 1000
_MAPPED_BYTES: Final = 64 << 20


@dataclass(frozen=True)
class Table:
    """Features as they lie, and how to standardise them.

    Attributes:
        parts: matrices side by side, float32 [N,D1], [N,D2], ...
        mean: of each column, float32 [D].
        deviation: likewise; 1 where a column is constant.
    """

    parts: tuple[Matrix, ...]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    def rows(self, rows: Rows) -> Matrix:
        """Standardised copies of some rows, float32 [n,D]."""
        some = np.concatenate([part[rows] for part in self.parts], axis=1)
        some -= self.mean
        some /= self.deviation
        return some

    def release(self) -> None:
        """Forgets what was read."""
        for part in self.parts:
            matrix.release(part)


def standardise(parts: Sequence[Matrix]) -> Table:
    """Measures mean and deviation of each column, in float64 and two passes.

    Columns that vary less than a millionth of what the most varied one of their part does count as constant.
    """
    means, deviations = [], []
    for part in parts:
        count, width = part.shape
        total = np.zeros(width)
        for some in _slices(part):
            total += part[some].sum(axis=0, dtype=np.float64)
        mean = total / count
        squares = np.zeros(width)
        for some in _slices(part):
            squares += ((part[some] - mean) ** 2).sum(axis=0)
        deviation = np.sqrt(squares / count)
        deviation[deviation <= 1e-6 * deviation.max()] = 1.0
        means.append(mean)
        deviations.append(deviation)
    mean, deviation = (np.concatenate(each).astype(np.float32) for each in (means, deviations))
    return Table(tuple(parts), mean, deviation)


def fit(
    table: Table,
    labels: Labels,
    rows: Rows,
    *,
    strength: float,
    loss: Loss,
    start: NDArray[np.float32],
    penalise_bias: bool = False,
) -> NDArray[np.float32]:
    """Minimises half the squared weights plus `strength` times the sum of the losses.

    Args:
        table: the features.
        labels: class number per row of the table, [N].
        rows: ascending; what the model is fitted to.
        strength: scikit-learn's C.
        loss: see Loss.
        start: where to begin, float32 [D+1,K]; the last row is the bias.
        penalise_bias: whether the bias counts as a weight, as in LinearSVC.

    Returns:
        Weights and bias, float32 [D+1,K].
    """
    penalty = np.full((len(start), 1), 1 / (strength * len(rows)))
    if not penalise_bias:
        penalty[-1] = 0

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(start.shape)
        exact = weights.astype(np.float32)

        def part(some: Rows) -> tuple[float, Matrix]:
            features = table.rows(some)
            value, by_logits = loss(features @ exact[:-1] + exact[-1], labels[some])
            return value, np.vstack([features.T @ by_logits, by_logits.sum(axis=0)])

        total, gradient = 0.0, np.zeros(start.shape)
        for value, by_weights in _over(table, rows, part):
            total += value
            gradient += by_weights
        gradient = gradient / len(rows) + penalty * weights
        return total / len(rows) + float((penalty * weights**2).sum()) / 2, gradient.ravel()

    options = {"maxiter": _LONGEST, "gtol": _TOLERANCE, "ftol": 64 * np.finfo(float).eps, "maxls": 50}
    found = minimize(objective, start.ravel().astype(np.float64), method="L-BFGS-B", jac=True, options=options)
    return np.asarray(found.x.reshape(start.shape), np.float32)


def logits(table: Table, weights: NDArray[np.float32], rows: Rows) -> Matrix:
    """What weights and bias, float32 [D+1,K], say of some rows: float32 [n,K]."""
    result = np.empty((len(rows), weights.shape[1]), np.float32)
    done = 0
    for said in _over(table, rows, lambda some: table.rows(some) @ weights[:-1] + weights[-1]):
        result[done : done + len(said)] = said
        done += len(said)
    return result


def cross_entropy(said: Matrix, labels: Labels) -> tuple[float, Matrix]:
    """Loss of multinomial logistic regression; with one logit, of the second class against the first, of binary."""
    if said.shape[1] == 1:
        value, gradient = cross_entropy(np.hstack([-said / 2, said / 2]), labels)
        return value, np.asarray((gradient[:, 1:] - gradient[:, :1]) / 2, np.float32)
    at = np.arange(len(labels)), labels
    said = said - said.max(axis=1, keepdims=True)
    shares = np.exp(said)
    sums = shares.sum(axis=1, keepdims=True)
    value = float(np.log(sums).sum(dtype=np.float64) - said[at].sum(dtype=np.float64))
    shares /= sums
    shares[at] -= 1
    return value, shares


def squared_hinge(said: Matrix, labels: Labels) -> tuple[float, Matrix]:
    """Loss of support vector machines, one against the rest; with one logit, of the second class against the first."""
    if said.shape[1] == 1:
        signs = np.where(labels == 1, 1, -1).astype(np.float32)[:, None]
    else:
        signs = np.full(said.shape, -1, np.float32)
        signs[np.arange(len(labels)), labels] = 1
    short = np.maximum(0, 1 - signs * said)
    return float(np.square(short).sum(dtype=np.float64)), -2 * signs * short


def _slices(part: Matrix) -> Iterator[slice]:
    """All rows of a matrix, chunk by chunk; forgets what was read."""
    read = 0
    for some in matrix.chunks(*part.shape):
        yield some
        read += part[some].nbytes
        if read > _MAPPED_BYTES:
            matrix.release(part)
            read = 0
    matrix.release(part)


def _over(table: Table, rows: Rows, function: Callable[[Rows], Said]) -> Iterator[Said]:
    """Applies a function to chunks of rows, in threads, and yields what it returns in the order of the rows."""
    pending: deque[Future[Said]] = deque()
    width, read = len(table.mean), 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for some in matrix.chunks(len(rows), width):
            pending.append(pool.submit(function, rows[some]))
            if len(pending) > 2 * _THREADS:
                yield pending.popleft().result()
            read += 4 * width * (some.stop - some.start)
            if read > _MAPPED_BYTES:
                table.release()
                read = 0
        while pending:
            yield pending.popleft().result()
    table.release()
