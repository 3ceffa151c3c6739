"""What a batch costs: seconds for each batch size, learned from the batches that ran.

A running estimate in wall-clock time, so that whatever else the core is busy with is in it. Admission and the size of
batches follow from it (service/admission.py, service/engine/loop.py).
"""

from typing import Final

_WEIGHT: Final = 0.1
"""Of the latest batch in the running estimate: a change of speed is learned within some ten batches."""
_WEIGHT_CUT_SHORT: Final = 0.5
"""Of a batch that took longer than its jobs had time: whoever waits behind it was promised too much."""
_HICCUP: Final = 3.0
"""A batch counts as at most so many times the estimate, so that one that was held up does not close admission."""


class BatchCost:
    """Seconds by batch size. Sizes that have not run yet are estimated from those that have.

    Args:
        max_batch: largest size.
    """

    def __init__(self, max_batch: int) -> None:
        self._seconds = [0.0] * (max_batch + 1)  # 0: nothing has run yet

    def observe(self, size: int, seconds: float) -> None:
        """Learns from one batch."""
        known = self._seconds
        before = known[size]
        known[size] = before + _WEIGHT * (min(seconds, _HICCUP * before) - before) if before else seconds
        # A batch takes no less time than a smaller one and no more than as many of one. This fills in what has not run,
        # and corrects what was learned in a bad minute and would not be tried again for being so expensive.
        for other in range(1, len(known)):
            most = known[size] * max(1.0, other / size)
            if not known[other]:
                known[other] = most
            elif known[other] > most:
                known[other] += _WEIGHT * (most - known[other])

    def observe_at_least(self, size: int, seconds: float) -> None:
        """Learns from a batch that was cut short when its jobs expired: a whole one takes longer.

        Learning nothing from those would be fatal: an engine that is slower than it believes promises too much, all of
        its batches are cut short, and it would never find out. What made this one slow, large pictures or a busy core,
        makes batches of every size slow.
        """
        before = self._seconds[size]
        if not before:
            self.observe(size, seconds)
        elif seconds > before:
            scale = 1 + _WEIGHT_CUT_SHORT * (seconds / before - 1)
            self._seconds = [known * scale for known in self._seconds]

    def observe_at_most(self, size: int, seconds: float) -> None:
        """Learns from a batch that would have taken no longer than this, had it been run like others."""
        if not 0.0 < self._seconds[size] <= seconds:
            self.observe(size, seconds)

    def seconds(self, size: int) -> float:
        """What a batch of this size takes; 0 before the first batch."""
        return self._seconds[size]

    def largest(self, limit_s: float) -> int:
        """The largest batch that takes at most `limit_s`; 1 where none does."""
        known = self._seconds
        for size in range(len(known) - 1, 1, -1):
            if known[size] <= limit_s:
                return size
        return 1
