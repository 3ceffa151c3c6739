"""The strategy `linear`: multinomial logistic regression on the frozen backbone's features.

`fit` takes other linear estimators too (training/svm.py): folds, standardisation and calibration are the same.

Its strength of regularisation is chosen by cross-validation, and everything that calibrates it comes from the same
out-of-fold scores, so no image is kept away from the final fit but the test split. Above 10,000 images the strength is
chosen on about so many of them, and the fits to all read the features chunk by chunk (training/streamed.py).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from training import calibration, depths, streamed
from training.backbones import Backbone
from training.calibration import Labels, Logits
from training.task import Task, Trained, Tried

FOLDS: Final = 5
STRENGTHS: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""scikit-learn's C: inverse of the L2 penalty on standardised features. Best on four-classes 1, on cats-dogs 0.01."""

AT_ONCE: Final = 10_000
"""Images whose features are fitted in memory; of more, so many decide on the strength."""

_DEFAULT_STRENGTH: Final = 0.01
_LONGEST: Final = 1000


@dataclass(frozen=True)
class Estimator:
    """A linear model of scikit-learn.

    Attributes:
        make: from its C to the model; the fitted `coef_` is [C,D], or [1,D] for two classes.
        strengths: values of C to try, weakest fit first.
        default: C where there are too few images to try.
        loss: the loss that it minimises, for fits that read the features chunk by chunk.
        margins: what it says are no log-probabilities, so its strengths are compared at their best temperatures.
        penalise_bias: whether its penalty holds the bias down too.
    """

    make: Callable[[float], Any]
    strengths: tuple[float, ...]
    default: float
    loss: streamed.Loss
    margins: bool = False
    penalise_bias: bool = False


LOGISTIC: Final = Estimator(
    lambda strength: LogisticRegression(C=strength, max_iter=_LONGEST, warm_start=True),
    STRENGTHS,
    _DEFAULT_STRENGTH,
    streamed.cross_entropy,
)


@dataclass(frozen=True)
class Strength:
    """One strength of regularisation, out of fold: `value` is scikit-learn's C; `seconds` to fit all folds."""

    value: float
    log_loss: float
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class LinearHead:
    """A fitted head: logits = features @ kernel + bias. Standardisation and temperature are folded in.

    Attributes:
        kernel: float32 [D,C].
        bias: float32 [C].
        strength: the chosen C.
        temperature: what the logits were divided by.
        unknown_threshold: see calibration.
        scores: calibrated probabilities of the images that were fitted, float32 [N,C].
        held_out: which of these were out of fold, [N]: all but the only picture of a class, which every fold needs. All
            where there was no fold; then the scores are of the final fit.
        tried: all strengths; empty where there was no fold.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    strength: float
    temperature: float
    unknown_threshold: float
    scores: Logits
    held_out: NDArray[np.bool_]
    tried: tuple[Strength, ...]

    def logits(self, features: NDArray[np.float32]) -> Logits:
        """float32 [N,D] -> calibrated logits float32 [N,C]."""
        return np.asarray(features @ self.kernel + self.bias, np.float32)


def train(
    task: Task,
    backbone: Backbone,
    features: NDArray[np.float32],
    on_progress: Callable[[int, int], None] | None = None,
) -> Trained:
    """Fits the head on train and validation together and joins it to the backbone.

    Args:
        task: what to learn.
        backbone: stays as it is.
        features: of all images of train and validation, in the order of `task.split.train + task.split.validation`.
        on_progress: as in `fit`.
    """
    fitted = task.split.train + task.split.validation
    groups = [task.groups[position] for position in fitted]
    head = fit(features, task.labels[list(fitted)], groups, task.classes, seed=task.seed, on_progress=on_progress)
    return trained(task, backbone, head)


def trained(task: Task, backbone: Backbone, head: LinearHead, layers: Sequence[str] = (depths.FINAL,)) -> Trained:
    """What a strategy with a linear head returns.

    Args:
        task: what was learnt, from train and validation together.
        backbone: stays as it is.
        head: fitted to the features of `layers`, side by side.
        layers: depths, see training/depths.py.
    """
    tried = sorted(head.tried, key=lambda one: one.log_loss)
    parameters = head.kernel.size + head.bias.size
    held_out = np.asarray(task.split.train + task.split.validation)[head.held_out]
    return Trained(
        model=join(backbone, head, layers),
        held_out=held_out.tolist(),
        scores=head.scores[head.held_out],
        temperature=head.temperature,
        unknown_threshold=head.unknown_threshold,
        trained_parameters=parameters,
        hyperparameters={"regularisation_c": f"{head.strength:g}", "folds": str(FOLDS)},
        tried=[
            Tried(f"linear, C={one.value:g}", one.accuracy, one.seconds, len(held_out), parameters) for one in tried
        ],
    )


def join(backbone: Backbone, head: LinearHead, layers: Sequence[str] = (depths.FINAL,)) -> Any:  # noqa: ANN401 - keras is untyped
    """keras.Model: images uint8 [N,S,S,3] -> scores float32 [N,C], BatchNorm in inference mode.

    Args:
        backbone: stays as it is.
        head: fitted to the features of `layers`, side by side.
        layers: depths, see training/depths.py.
    """
    features = depths.model(backbone, layers)
    dense = keras.layers.Dense(head.bias.size, activation="softmax", name="head")
    model = keras.Model(features.input, dense(features.output))
    dense.set_weights([head.kernel, head.bias])
    return model


def fit(
    features: NDArray[np.float32],
    labels: Labels,
    groups: Sequence[int],
    classes: int,
    *,
    seed: int = 0,
    estimator: Estimator = LOGISTIC,
    on_progress: Callable[[int, int], None] | None = None,
) -> LinearHead:
    """Fits the head.

    Args:
        features: float32 [N,D].
        labels: class number per image; every class occurs.
        groups: images of one group stay in one fold.
        classes: C.
        seed: of the folds.
        estimator: what is fitted.
        on_progress: called with (fits done, fits in all); of fits to all images of many, one counts as several.
    """
    if len(labels) > AT_ONCE:
        return fit_streamed(
            [features], labels, groups, classes, seed=seed, estimator=estimator, on_progress=on_progress
        )
    # Scaled first: an untrained network's features can be as small as 1e-18, and their squares are nothing in float32.
    scale = float(np.abs(features).max()) or 1.0
    standardised = features / scale
    mean, deviation = standardised.mean(axis=0), standardised.std(axis=0)
    deviation[deviation <= 1e-6 * deviation.max()] = 1.0
    standardised -= mean
    standardised /= deviation
    folds = _folds(labels, groups, seed)
    # One BLAS thread: the products are so small that more of them only wait for each other. Five strengths on
    # four-classes take 0.7 s with one thread and 3.5 s with two.
    with threadpool_limits(1):
        basis = _row_space(standardised)
        standardised = standardised if basis is None else np.asarray(standardised @ basis, np.float32)
        count = _Count(len(_numbers(folds)) * len(estimator.strengths) + 1, on_progress)
        tried, out_of_fold = _cross_validate(standardised, labels, folds, classes, estimator=estimator, count=count)
        strength = min(tried, key=lambda one: one.log_loss).value if tried else estimator.default
        kernel, bias = _coefficients(estimator.make(strength).fit(standardised, labels), classes)
    logits = np.asarray(standardised @ kernel + bias, np.float32)
    held_out = folds >= 0
    if tried:
        logits[held_out] = out_of_fold[strength][held_out]
    kernel = kernel if basis is None else basis @ kernel
    return _head((kernel, bias), (scale, mean, deviation), strength, logits, held_out, labels=labels, tried=tried)


def fit_streamed(
    parts: Sequence[NDArray[np.float32]],
    labels: Labels,
    groups: Sequence[int],
    classes: int,
    *,
    seed: int = 0,
    estimator: Estimator = LOGISTIC,
    on_progress: Callable[[int, int], None] | None = None,
) -> LinearHead:
    """As `fit`, without ever having all features in memory; several matrices stand side by side.

    A fold's fit to all its images starts from its fit to those that decided on the strength, so it knows no other.
    """
    folds = _folds(labels, groups, seed)
    table = streamed.standardise(parts)
    everything = np.arange(len(labels))
    some = _some(labels, folds, seed)
    large = -(-len(labels) // AT_ONCE)
    count = _Count(len(_numbers(folds)) * (len(estimator.strengths) + large) + large, on_progress)
    with threadpool_limits(1):
        features = table.rows(some)
        tried, _ = _cross_validate(features, labels[some], folds[some], classes, estimator=estimator, count=count)
        strength = min(tried, key=lambda one: one.log_loss).value if tried else estimator.default

        def fitted(start_from: NDArray[np.bool_], rows: NDArray[np.intp]) -> NDArray[np.float32]:
            model = estimator.make(strength).fit(features[start_from], labels[some][start_from])
            start = np.vstack([model.coef_.T, model.intercept_]).astype(np.float32)
            weights = streamed.fit(
                table,
                labels,
                rows,
                strength=strength,
                loss=estimator.loss,
                start=start,
                penalise_bias=estimator.penalise_bias,
            )
            count.add(large)
            return weights

        logits = np.zeros((len(labels), classes), np.float32)

        def ask(weights: NDArray[np.float32], rows: NDArray[np.intp]) -> None:
            logits[rows] = _for_each_class(streamed.logits(table, weights, rows), classes)

        for fold in _numbers(folds):
            ask(fitted(folds[some] != fold, everything[folds != fold]), everything[folds == fold])
        weights = fitted(np.ones(len(some), bool), everything)
        held_out = folds >= 0
        if not held_out.all():
            ask(weights, everything[~held_out])
    weights = _for_each_class(weights, classes)
    standardisation = (1.0, table.mean, table.deviation)
    return _head((weights[:-1], weights[-1]), standardisation, strength, logits, held_out, labels=labels, tried=tried)


def _head(
    weights: tuple[NDArray[np.float32], NDArray[np.float32]],
    standardisation: tuple[float, NDArray[np.float32], NDArray[np.float32]],
    strength: float,
    logits: Logits,
    held_out: NDArray[np.bool_],
    *,
    labels: Labels,
    tried: Sequence[Strength],
) -> LinearHead:
    """The calibrated head for features as they come, from one for standardised features and its out-of-fold logits."""
    kernel, bias = weights
    scale, mean, deviation = standardisation
    temperature = calibration.temperature(logits[held_out], labels[held_out]) if tried else 1.0
    scores = calibration.softmax(logits / temperature)
    threshold = calibration.unknown_threshold(scores[held_out], labels[held_out]) if tried else 0.0
    kernel = kernel / deviation[:, None] / temperature
    bias = bias / temperature - mean @ kernel
    kernel = kernel / scale
    return LinearHead(
        kernel=kernel.astype(np.float32),
        bias=bias.astype(np.float32),
        strength=strength,
        temperature=temperature,
        unknown_threshold=threshold,
        scores=scores,
        held_out=held_out if tried else np.ones_like(held_out),
        tried=tuple(tried),
    )


def _row_space(features: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """An orthonormal basis [D,N] of what the rows span; None where there are as many images as features.

    A penalty on the squared kernel keeps it within what the rows span (the representer theorem), so fitting in this
    basis finds the same kernel among N numbers per class in place of D. Support vector machines on 130 images of 1700
    features take a tenth of the CPU time, on 600 of 1280 less than half.
    """
    if len(features) >= features.shape[1]:
        return None
    basis, _ = np.linalg.qr(features.T)
    return np.asarray(basis, np.float32)


def _some(labels: Labels, folds: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """About AT_ONCE rows, ascending: the same share of each class in each fold, at least one."""
    random = np.random.default_rng(seed)
    cells = labels * (folds.max() + 2) + folds + 1
    order = random.permutation(len(labels))
    order = order[np.argsort(cells[order], kind="stable")]
    _, start, count = np.unique(cells[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(start, count)
    return np.sort(order[rank < np.repeat(np.ceil(count * (AT_ONCE / len(labels))), count)])


class _Count:
    """How many fits are done, of how many."""

    def __init__(self, total: int, on_progress: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._on_progress = 0, total, on_progress

    def add(self, fits: int) -> None:
        self._done += fits
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


def _cross_validate(
    features: NDArray[np.float32],
    labels: Labels,
    folds: NDArray[np.intp],
    classes: int,
    *,
    estimator: Estimator,
    count: _Count,
) -> tuple[list[Strength], dict[float, Logits]]:
    """Fits each fold along the strengths, each from the one before: a third of the iterations of starting anew."""
    out_of_fold = {strength: np.zeros((len(labels), classes), np.float32) for strength in estimator.strengths}
    seconds = dict.fromkeys(estimator.strengths, 0.0)
    held_out = folds >= 0
    if not held_out.any():
        return [], {}
    for fold in _numbers(folds):
        fitted = folds != fold
        model = estimator.make(estimator.strengths[0])
        for strength in estimator.strengths:
            start = time.monotonic()
            model.set_params(C=strength).fit(features[fitted], labels[fitted])
            seconds[strength] += time.monotonic() - start
            kernel, bias = _coefficients(model, classes)
            out_of_fold[strength][~fitted] = features[~fitted] @ kernel + bias
            count.add(1)
    tried = [
        Strength(
            strength,
            _log_loss(logits[held_out], labels[held_out], estimator),
            float(np.mean(logits[held_out].argmax(axis=1) == labels[held_out])),
            round(seconds[strength], 2),
        )
        for strength, logits in out_of_fold.items()
    ]
    return tried, out_of_fold


def _folds(labels: Labels, groups: Sequence[int], seed: int) -> NDArray[np.intp]:
    """A fold number per image, at most 5: whole groups, and of every class about as many in each fold.

    A group of several classes counts for its first image's. -1, which every fold's fit knows, for the groups of a class
    that would otherwise be missing from one of them, as one with a single picture.
    """
    numbers = np.asarray(groups)
    _, first = np.unique(numbers, return_index=True)
    by_class = [numbers[first[labels[first] == label]] for label in np.unique(labels)]
    random = np.random.default_rng(seed)
    fold_of = {}
    for members in by_class:
        for position, group in enumerate(random.permutation(members)):
            fold_of[int(group)] = position % FOLDS
    folds = np.array([fold_of[int(group)] for group in numbers], np.intp)
    for label in np.unique(labels):
        members = labels == label
        if len(np.unique(folds[members])) == 1:
            folds[np.isin(numbers, numbers[members])] = -1
    return folds


def _numbers(folds: NDArray[np.intp]) -> NDArray[np.intp]:
    """Of the folds that hold something out, ascending."""
    return np.unique(folds[folds >= 0])


def _log_loss(logits: Logits, labels: Labels, estimator: Estimator) -> float:
    temperature = calibration.temperature(logits, labels) if estimator.margins else 1.0
    return calibration.log_loss(logits / temperature, labels)


def _coefficients(model: Any, classes: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # noqa: ANN401
    return _for_each_class(model.coef_.T, classes), _for_each_class(model.intercept_[None], classes)[0]


def _for_each_class(columns: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    """[n,K] to [n,C]: of two classes scikit-learn fits one logit; half for and half against is the same softmax."""
    if classes != 2:
        return columns
    halves: NDArray[np.float32] = np.hstack([-columns, columns])
    halves /= 2
    return halves
