"""Measures a small fine-tuning run, so that a large one is estimated from it, and stops one that takes too long.

A meter is a `Phases` that says nothing: whoever fine-tunes need not know that it is being measured.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich.console import Console

from training.progress import Advance, Phases

ACTIVATIONS: Final = "computing activations"
TRAINING: Final = "training"


class OutOfTimeError(Exception):
    """The deadline has passed."""


@dataclass(frozen=True)
class Cost:
    """Of fine-tuning: what starting takes, and the rates after that."""

    setup_s: float
    activation_s: float
    step_s: float

    def epochs(self, seconds: float, images: int, steps: int, most: int) -> int:
        """How many epochs fit into so many seconds; validation is taken for a quarter of the steps' time."""
        per_epoch = 1.25 * steps * self.step_s
        left = seconds - self.setup_s - images * self.activation_s
        return max(0, min(most, int(left / max(per_epoch, 1e-6))))


class Meter(Phases):
    """Times every step of every phase.

    Args:
        clock: seconds; injected by tests.
        deadline: on that clock; past it the next step raises OutOfTimeError.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, deadline: float = float("inf")) -> None:
        super().__init__(Console(quiet=True), clock)
        self._deadline = deadline
        self._steps: dict[str, list[tuple[int, float]]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[Advance]:
        """As Phases.phase."""
        steps = self._steps.setdefault(name, [])

        def advance(done: int, _total: int) -> None:
            now = self._clock()
            steps.append((done, now))
            if now > self._deadline:
                raise OutOfTimeError(name)

        with super().phase(name):
            yield advance

    def cost(self) -> Cost:
        """The rates of its phases; what is left of their seconds is the setup."""
        return Cost(sum(self.seconds.values()), self._rate(ACTIVATIONS), self._rate(TRAINING))

    def _rate(self, name: str) -> float:
        """Seconds per unit after the first step, which traces and compiles; the fastest half of the steps."""
        steps = self._steps.get(name, [])
        each = sorted(
            (now - before) / (done - had) for (had, before), (done, now) in itertools.pairwise(steps) if done > had
        )
        half = each[: max(1, (len(each) + 1) // 2)]
        return sum(half) / len(half) if half else self.seconds.get(name, 0.0)
