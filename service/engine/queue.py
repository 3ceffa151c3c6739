"""The batch queue: which jobs run together, and which never run at all.

Knows nothing of images, models, sockets or threads; time is an argument. An engine puts jobs in as they arrive and
takes a batch whenever it is idle, so a batch is whatever came in while the last one ran: no fixed wait.

Bounds: a job that was put is returned exactly once, by `take` (in a batch or as expired) or by `cancel`; a batch holds
at most `max_batch` jobs, in order of arrival; a solo job is a batch of its own.
"""

from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Job(Protocol):
    """What the queue needs to know of a job."""

    @property
    def key(self) -> Hashable:
        """Unique among the jobs in the queue."""

    @property
    def deadline(self) -> float:
        """When its answer stops being of use, in the clock of `take`."""

    @property
    def solo(self) -> bool:
        """Whether it must run without neighbours."""


J = TypeVar("J", bound=Job)


class BatchQueue(Generic[J]):
    """Jobs that wait, in order of arrival.

    Args:
        max_batch: most jobs in one batch.
    """

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._waiting: dict[Hashable, J] = {}  # a dict keeps the order of arrival and finds a job to cancel

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, job: J) -> None:
        """Appends a job.

        Raises:
            ValueError: a job with this key waits already.
        """
        if job.key in self._waiting:
            raise ValueError(f"job {job.key} is in the queue already")
        self._waiting[job.key] = job

    def cancel(self, key: Hashable) -> bool:
        """Forgets a job; False when it does not wait any more."""
        return self._waiting.pop(key, None) is not None

    def cancel_where(self, unwanted: Callable[[J], bool]) -> None:
        """Forgets every job for which `unwanted` is true."""
        for key in [key for key, job in self._waiting.items() if unwanted(job)]:
            del self._waiting[key]

    def take(self, now: float) -> tuple[list[J], list[J]]:
        """Takes the next batch out of the queue.

        Returns:
            The batch, empty when nothing can run, and the expired jobs that were met on the way, which must not run.
        """
        batch: list[J] = []
        expired: list[J] = []
        for job in self._waiting.values():
            if job.deadline <= now:
                expired.append(job)
            elif batch and (job.solo or len(batch) == self._max_batch):
                break
            else:
                batch.append(job)
                if job.solo:
                    break
        for job in (*batch, *expired):
            del self._waiting[job.key]
        return batch, expired
