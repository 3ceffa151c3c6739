"""Admission: whether a request that comes now can be answered in time.

Counts what is in flight in this front and compares what waits at the engines (service/backlog.py), in seconds of work,
with the target and the request's own deadline. What cannot be in time is refused before anything is done for it. An
engine for which nothing waits takes anything, however short the time, so an estimate that is too high corrects itself.
"""

from collections.abc import Sequence
from typing import Final

from service.backlog import Backlog
from service.errors import Overloaded

_SHARE: Final = 0.75
"""Of the time there is, the rest being for what no estimate knows: larger pictures, the way through the front."""


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
                f"expected at most {self._most[bulk]} images in flight, there are {here} and {images} more came"
            )
        interactive_ahead = bulk_ahead = speed = batch_s = 0.0
        for backlog in backlogs:
            waiting = backlog.in_flight()
            interactive_ahead += waiting[0]
            bulk_ahead += waiting[1]
            image_s = backlog.image_s
            if not image_s:  # it has not learned yet
                return
            speed += 1 / image_s
            batch_s = max(batch_s, backlog.batch_s)
        ahead = interactive_ahead + bulk_ahead if bulk else interactive_ahead
        if ahead < max(1, len(backlogs)):  # an engine is idle, or there is none at present
            return
        wait_s = ahead / speed
        limit_s = _SHARE * timeout_s - max(images / speed, batch_s)
        if not bulk:
            limit_s = min(limit_s, self._limit_s - batch_s)
            if bulk_ahead:
                wait_s += batch_s  # one of bulk may have begun
        if wait_s > limit_s:
            raise Overloaded(
                f"expected to begin within {max(0.0, limit_s):.3g} s to be in time, but {ahead:.0f} images wait, "
                f"{wait_s:.3g} s of work",
                retry_after_s=wait_s - max(0.0, limit_s),
            )
