"""The decisions of `--strategy auto`, apart from doing anything: what fits the budget, what wins, which case it is.

Everything is decided on images that a candidate was not fitted on. The test split is not known here.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from training import depths
from training.calibration import Labels, Logits

Ranked = TypeVar("Ranked")

FINE_TUNED: Final = "partial"

ORDER: Final = ("linear", "svm", "multilayer", FINE_TUNED)
"""Of candidates that are exactly as good the first wins."""

LARGE: Final = 1000
"""Training images per class from which data count as large: there fine-tuning seldom overfits."""

_FEWEST_TO_LEARN: Final = 8
_FEWEST_TO_JUDGE: Final = 20
_MOST_REMOVED: Final = 0.5
_MATTERS: Final = 0.005
_TO_TRY: Final = 2.0
"""For each standard error that fine-tuning must gain, those that it must be able to gain; see `refusal`."""
_FEWEST_IMAGES: Final = 500
_FEWEST_OF_CLASS: Final = 5
_MOST_FIRST: Final = 10_000
_SIMILAR: Final = 0.9


class Budget:
    """Seconds that may be spent, from now on.

    Args:
        seconds: in all.
        clock: seconds; injected by tests.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._start = clock()

    @property
    def spent_s(self) -> float:
        """Since the start."""
        return self._clock() - self._start

    @property
    def left_s(self) -> float:
        """May be negative."""
        return self.seconds - self.spent_s


@dataclass(frozen=True)
class Result:
    """How a candidate did on images that it was not fitted on.

    Attributes:
        name: as the table shows it.
        strategy: one of ORDER.
        positions: which images, [N].
        losses: log-loss of each, in nats, [N].
        right: whether the answer was right, [N].
        seconds: that trying it took.
        parameters: that were fitted.
    """

    name: str
    strategy: str
    positions: NDArray[np.intp]
    losses: NDArray[np.float64]
    right: NDArray[np.bool_]
    seconds: float
    parameters: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.right.mean())


def result(
    name: str,
    strategy: str,
    positions: NDArray[np.intp],
    scores: Logits,
    labels: Labels,
    *,
    seconds: float,
    parameters: int,
) -> Result:
    """Makes a result of probabilities float32 [N,C] and the class numbers [N] of the same images."""
    said = np.clip(scores[np.arange(len(labels)), labels].astype(np.float64), 1e-7, 1.0)
    return Result(
        name,
        strategy,
        positions,
        -np.log(said),
        scores.argmax(axis=1) == labels,
        seconds,
        parameters,
    )


def choose(results: Sequence[Result], left: float) -> tuple[Result, str]:
    """The winner, and why in one sentence.

    Heads cost the same to train and to serve, so the one with the lowest log-loss out of fold leads. (Log-loss, for it
    tells heads apart that differ in two answers of six hundred.) Fine-tuning costs more, has seen fewer images and has
    its temperature from those that it is judged on: it takes the lead when, on the images that both were tried on, its
    log-loss is lower by more than its `doubt`, in standard errors of the difference, and it is right at least as often.

    Args:
        results: of all candidates.
        left: of the mistakes of guessing, those that a linear head on the last features makes; see `mistakes_left`.
    """
    ordered = sorted(results, key=lambda one: ORDER.index(one.strategy))
    heads = [one for one in ordered if one.strategy != FINE_TUNED]
    lead = min(heads, key=lambda one: float(one.losses.mean()))
    others = [one for one in heads if one is not lead]
    reason = "nothing else could be tried."
    if others:
        second = min(others, key=lambda one: float(one.losses.mean()))
        reason = f"the lowest log-loss of all heads, {second.name} follows: {_said(lead, second)}."
    for one in ordered:
        if one.strategy != FINE_TUNED:
            continue
        gain, error, more_right, _ = _compare(one, lead)
        by = " by more than a standard error" if doubt(left) else ", with no margin asked in a different domain"
        if gain > doubt(left) * error and more_right >= 0:
            lead, reason = one, f"better than {lead.name}{by}: {_said(one, lead)}."
        else:
            reason += f" {one.name} is not better{by}: {_said(one, lead)}."
    return lead, f"{lead.name} won: {reason}"


def _said(one: Result, other: Result) -> str:
    gain, error, more_right, images = _compare(one, other)
    return f"log-loss lower by {gain:.4f} +- {error:.4f} on the same {images} images, {more_right:+d} right"


def doubt(left: float) -> float:
    """Standard errors by which fine-tuning has to win: 1 on data like the backbone's own, 0 on data of another domain.

    A few validation images see a great gain as one of less than a standard error; and where features are nearly perfect
    there is hardly any gain, so that a lead is luck.

    Args:
        left: of the mistakes of guessing, those that a linear head on the features makes; see `mistakes_left`.
    """
    return 1.0 if _suits(left) else 0.0


def refusal(lead: Result, labels: Labels, validation: Sequence[int], left: float) -> str:
    """Why fine-tuning is not worth trying; empty where it is.

    Args:
        lead: the best head.
        labels: class number per training image.
        validation: positions of the validation images.
        left: see `choose`.
    """
    counts = np.bincount(labels)
    per_class = int(np.median(counts[counts > 0]))
    if per_class < _FEWEST_TO_LEARN:
        return f"{per_class} training images in the median class are too few to learn from, of {_FEWEST_TO_LEARN}"
    if len(validation) < _FEWEST_TO_JUDGE:
        return f"{len(validation)} validation images are too few to judge by, of {_FEWEST_TO_JUDGE}"
    wrong = 1 - lead.accuracy
    if _MOST_REMOVED * wrong < _MATTERS:
        return f"half of the {wrong:.2%} mistakes of {lead.name} would be less than {_MATTERS:.1%} of the images"
    # Images that lose all their loss, half of them: a gain of mean / 2, with a standard error of std / sqrt(2 images).
    gain, error = float(lead.losses.mean()), float(lead.losses.std())
    told = math.sqrt(_MOST_REMOVED * len(validation))
    needed = _TO_TRY * doubt(left)
    if told * gain < needed * error:
        return (
            f"without half of its mistakes {lead.name} would be better by {told * gain / error:.1f} standard errors on "
            f"{len(validation)} validation images, too few to try, of {needed:.2g}"
        )
    return ""


def first_rung(labels: Labels, seed: int) -> NDArray[np.intp]:
    """Rows of the images on which candidates are halved first: a quarter, at most 10,000; all where that is too few.

    Of a class at least 5, so that each fold of a cross-validation can have one.
    """
    if len(labels) // 4 < _FEWEST_IMAGES:
        return np.arange(len(labels))
    random = np.random.default_rng(seed)
    by_class = [random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    part = max(4, len(labels) / _MOST_FIRST)
    return np.sort(np.concatenate([rows[: max(math.ceil(len(rows) / part), _FEWEST_OF_CLASS)] for rows in by_class]))


def better_half(ranked: Sequence[Ranked]) -> list[Ranked]:
    """The first half, rounded up."""
    return list(ranked[: -(-len(ranked) // 2)])


@dataclass(frozen=True)
class Case:
    """Which of the textbook's four cases this is, by what was measured.

    Attributes:
        large: many images per class.
        similar: the data look like what the backbone was trained on.
        rule: how that was decided, with the numbers.
    """

    large: bool
    similar: bool
    rule: str

    @property
    def size(self) -> str:
        """In a word."""
        return "large" if self.large else "small"

    @property
    def domain(self) -> str:
        """In a word."""
        return "similar" if self.similar else "different"


def case(labels: Labels, evidence: Mapping[str, float], linear: Result) -> Case:
    """Decides on the case.

    Large or small is counted. Similar means that the last features as they are suit the labels: no earlier depth has a
    higher LogME, and a linear head on them avoids nine tenths of the mistakes of always saying the commonest class.

    Args:
        labels: class number per training image.
        evidence: LogME by depth, first to last.
        linear: what a linear head on the last features reaches.
    """
    counts = np.bincount(labels)
    per_class = int(np.median(counts[counts > 0]))
    left = mistakes_left(linear.accuracy, labels)
    size = f"{per_class} images in the median class, {'at least' if per_class >= LARGE else 'fewer than'} {LARGE}"
    best = max(evidence, key=lambda layer: evidence[layer])
    similar = best == depths.FINAL and _suits(left)
    domain = (
        f"LogME is highest at {'the last features' if best == depths.FINAL else best}, and a linear head on the last "
        f"features avoids {1 - left:.0%} of the mistakes of guessing; similar from {_SIMILAR:.0%} on"
    )
    return Case(per_class >= LARGE, similar, f"{size}; {domain}")


def mistakes_left(accuracy: float, labels: Labels) -> float:
    """Of the mistakes of always saying the commonest class, the share that is still made at an accuracy.

    Args:
        accuracy: of answers about images like these.
        labels: class number per image.
    """
    guessing = 1 - float(np.bincount(labels).max()) / len(labels)
    return (1 - accuracy) / guessing if guessing else 0.0


def _suits(left: float) -> bool:
    """Whether features, as they are, avoid nine tenths of the mistakes of guessing."""
    return 1 - left >= _SIMILAR


def _compare(one: Result, other: Result) -> tuple[float, float, int, int]:
    """Log-loss that `one` saves, the standard error of that, how many more it has right, and on how many images."""
    _, mine, theirs = np.intersect1d(one.positions, other.positions, return_indices=True)
    saved = other.losses[theirs] - one.losses[mine]
    error = float(saved.std(ddof=1) / math.sqrt(len(saved))) if len(saved) > 1 else math.inf
    more = int(one.right[mine].sum()) - int(other.right[theirs].sum())
    return float(saved.mean()) if len(saved) else 0.0, error, more, len(saved)
