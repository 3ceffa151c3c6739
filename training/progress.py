"""Tells the person at the terminal what is going on and how long it will take, and keeps the seconds of each phase.

On a terminal: bars with the rate and the time left. Elsewhere (a log file, CI): one line when a phase ends, and one
every ten seconds while it runs.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[[int, int], None]
"""Called with (done, in all)."""

_LINE_EVERY_S: Final = 10.0


class OutOfTimeError(Exception):
    """What was begun cannot be finished within the seconds that it was given."""


class Phases:
    """The phases of a run, in order.

    Args:
        console: where to write.
        clock: seconds; injected by tests.
        deadline: on that clock; who works for long looks at `left_s`.

    Attributes:
        console: the same, for whoever has something to add.
        seconds: by phase, in the order in which they ran.
    """

    def __init__(
        self, console: Console, clock: Callable[[], float] = time.monotonic, deadline: float = math.inf
    ) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._deadline = deadline

    @property
    def left_s(self) -> float:
        """Seconds to the deadline; infinite where there is none, negative after it."""
        return self._deadline - self._clock()

    def within(self, seconds: float) -> "Phases":
        """The same phases, for work that gets so many seconds from now on."""
        limited = Phases(self.console, self._clock, self._clock() + seconds)
        limited.seconds = self.seconds
        return limited

    @contextmanager
    def phase(self, name: str) -> Iterator[Advance]:
        """Times a phase; what it yields shows how far the phase has come."""
        start = self._clock()
        show = self._bar if self.console.is_terminal else self._lines
        with show(name, start) as advance:
            yield advance
        seconds = self._clock() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.console.print(f"{name:<22} {seconds:6.1f} s")

    @contextmanager
    def _bar(self, name: str, _start: float) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar = progress.add_task(name, total=None)
            yield lambda done, total: progress.update(bar, completed=done, total=total)

    @contextmanager
    def _lines(self, name: str, start: float) -> Iterator[Advance]:
        last = start

        def advance(done: int, total: int) -> None:
            nonlocal last
            now = self._clock()
            if now - last >= _LINE_EVERY_S and done:
                last = now
                each_s = (now - start) / done
                left = f"{_rate(1 / each_s)}, about {each_s * (total - done):.0f} s left"
                self.console.print(f"{name:<22} {done} of {total}, {left}")

        yield advance


class _Rate(ProgressColumn):
    """How many a second, once that is known."""

    def render(self, task: Task) -> Text:
        return Text(_rate(task.speed) if task.speed else "")


def _rate(per_second: float) -> str:
    return f"{per_second:.{0 if per_second >= 10 else 1}f}/s"
