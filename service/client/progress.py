"""How far a bulk run is, on standard error: a bar with rate on a terminal with rich, else a line now and then."""

import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Final, Self

_LINE_EVERY_S: Final = 10.0
_BAR_PER_S: Final = 2


class Progress:
    """Counts images and says so.

    Args:
        done: images that earlier runs have done already.
        count: finds out how many there are altogether, in a thread of its own and only where there is a bar; None when
            that cannot be known.
    """

    def __init__(self, done: int, count: Callable[[], int] | None) -> None:
        self.images = 0
        self.failed = 0
        self._started = time.monotonic()
        self._line_at = self._started + _LINE_EVERY_S
        self._done = done
        self._bar: Any = None  # rich.progress.Progress, not imported here
        self._task: Any = None
        self._waited: set[str] = set()
        self._lock = threading.Lock()  # guards what was said, for `wait` is called by any thread
        if sys.stderr.isatty() and find_spec("rich"):
            self._bar = _bar()
            self._task = self._bar.add_task("", total=None, completed=done, rate="")
            if count:
                threading.Thread(target=self._find_total, args=(count,), daemon=True).start()

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def rate(self) -> float:
        """Images per second, of this run."""
        return self.images / max(1e-3, time.monotonic() - self._started)

    @property
    def seconds(self) -> float:
        """Since the beginning of this run."""
        return time.monotonic() - self._started

    def advance(self, images: int, failed: int) -> None:
        """Counts images that are in the results now, failed ones among them."""
        self.images += images
        self.failed += failed
        if self._bar:
            self._bar.update(self._task, advance=images, rate=self._told())
        elif time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + _LINE_EVERY_S
            self.say(f"{self._done + self.images} images, {self._told()}")

    def wait(self, reason: str) -> None:
        """Says that the service is away; each reason once."""
        with self._lock:
            if reason in self._waited:
                return
            self._waited.add(reason)
        self.say(f"waiting for the service: {reason}")

    def say(self, line: str) -> None:
        """Writes a line, above the bar where there is one."""
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    def _told(self) -> str:
        return f"{self.rate:.0f}/s" + (f", {self.failed} failed" if self.failed else "")

    def _find_total(self, count: Callable[[], int]) -> None:
        self._bar.update(self._task, total=count())


def _bar() -> Any:  # noqa: ANN401
    from rich.console import Console  # noqa: PLC0415 - only a terminal pays for it
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (BarColumn(None), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    return Bar(*columns, console=Console(stderr=True), refresh_per_second=_BAR_PER_S)
