"""Admission: whether a request that comes now can be answered in time.

Counts what is in flight in this front and compares what waits at the engines (service/backlog.py), in seconds of work,
with the target and the request's own deadline. What cannot be in time is refused before anything is done for it. An
engine for which nothing waits takes anything, however short the time, so an estimate that is too high corrects itself.

A front that is short of time is late itself: with its answers, so it lets fewer in; and so that refusing does not take
the time that answering needs, it keeps its refusals back for a moment, which slows down those who ask again at once.
"""

import math
from collections.abc import Sequence
from typing import Final

from service.backlog import Backlog
from service.errors import Overloaded

_SHARE: Final = 0.75
"""Of the time there is, the rest being for what no estimate knows: larger pictures, the way through the front."""

_LAG_WEIGHT: Final = 0.2
"""Of the latest look at the event loop in the running estimate of its lag."""
_LAGS_OF_ANSWER: Final = 2
"""An answer waits for the loop twice: to be read from the engine, and to be written."""
_LEAST_LAG_S: Final = 0.005
_LAGS_KEPT_BACK: Final = 8
_LONGEST_KEPT_BACK_S: Final = 1.0
"""As long as clients are told to wait before they ask again (Retry-After)."""


class Admission:
    """Counts and refuses.

    Args:
        max_queue: most images in flight in this front, of which bulk may be half.
        target_s: time within which nearly all interactive images should be answered.
    """

    def __init__(self, max_queue: int, target_s: float) -> None:
        self._most = (max_queue, max(1, max_queue // 2))
        self._limit_s = _SHARE * target_s
        self._in_flight = [0, 0]
        self._lag_s = 0.0

    @property
    def in_flight(self) -> int:
        """Images that were let in and are not answered."""
        return sum(self._in_flight)

    def enter(self, images: int, *, bulk: bool) -> None:
        """Counts images in; see `check`."""
        self._in_flight[bulk] += images

    def leave(self, images: int, *, bulk: bool) -> None:
        """Counts images out again."""
        self._in_flight[bulk] -= images

    def observe_lag(self, late_s: float) -> None:
        """Learns by how much this front's event loop was late for something at a fixed time."""
        self._lag_s += _LAG_WEIGHT * (late_s - self._lag_s)

    def check(self, backlogs: Sequence[Backlog], images: int, *, bulk: bool, timeout_s: float) -> None:
        """Refuses what could not be in time.

        Args:
            backlogs: of the engines that could answer.
            images: how many there are in the request.
            bulk: its priority.
            timeout_s: time until its deadline.

        Raises:
            Overloaded: with the seconds after which another try makes sense.
        """
        here = self._in_flight[1] if bulk else self.in_flight
        if here + images > self._most[bulk]:
            raise Overloaded(
                f"expected at most {self._most[bulk]} images in flight, there are {here} and {images} more came",
                kept_back_s=self._kept_back_s,
            )
        interactive_ahead, bulk_ahead, speed, batch_s = _work(backlogs)
        if not speed:
            return
        ahead = interactive_ahead + bulk_ahead if bulk else interactive_ahead
        if ahead < len(backlogs):  # an engine is idle
            return
        wait_s = ahead / speed
        late_s = _LAGS_OF_ANSWER * self._lag_s
        limit_s = _SHARE * timeout_s - max(images / speed, batch_s) - late_s
        if not bulk:
            limit_s = min(limit_s, self._limit_s - batch_s - late_s)
            if bulk_ahead:
                wait_s += batch_s  # one of bulk may have begun
        if wait_s > limit_s:
            raise Overloaded(
                f"expected to begin within {max(0.0, limit_s):.3g} s to be in time, but {ahead:.0f} images wait, "
                f"{wait_s:.3g} s of work",
                retry_after_s=wait_s - max(0.0, limit_s),
                kept_back_s=self._kept_back_s,
            )

    def check_deadline(self, versions: Sequence[Sequence[Backlog]], timeout_s: float) -> None:
        """Refuses what `check` would refuse whatever it asked for, by its own deadline.

        Says nothing while refusals are kept back.

        Args:
            versions: of each that could be asked for, its engines' backlogs.
            timeout_s: time until the deadline.

        Raises:
            Overloaded: with the seconds after which another try makes sense.
        """
        least_s = math.inf
        for backlogs in versions:
            ahead, _, speed, batch_s = _work(backlogs)
            if not speed or ahead < len(backlogs):
                return
            limit_s = _SHARE * timeout_s - max(1 / speed, batch_s) - _LAGS_OF_ANSWER * self._lag_s
            least_s = min(least_s, ahead / speed - limit_s)
            if least_s <= 0:
                return
        if versions and not self._kept_back_s:
            raise Overloaded(f"expected to begin {least_s:.3g} s earlier to be in time", retry_after_s=least_s)

    @property
    def _kept_back_s(self) -> float:
        """For how long a refusal is kept back; 0 while the front is not short of time."""
        return min(_LONGEST_KEPT_BACK_S, _LAGS_KEPT_BACK * self._lag_s) if self._lag_s > _LEAST_LAG_S else 0.0


def _work(backlogs: Sequence[Backlog]) -> tuple[float, float, float, float]:
    """What waits at a version's engines: interactive images, bulk images, how many all do in a second, a batch's time.

    All are 0 where there is no engine, or one that has not learned yet.
    """
    interactive = bulk = speed = batch_s = 0.0
    for backlog in backlogs:
        waiting = backlog.in_flight()
        interactive += waiting[0]
        bulk += waiting[1]
        image_s = backlog.image_s
        if not image_s:
            return 0.0, 0.0, 0.0, 0.0
        speed += 1 / image_s
        batch_s = max(batch_s, backlog.batch_s)
    return interactive, bulk, speed, batch_s
