"""The batch queue: which jobs run together, and which never run at all.

Knows nothing of images, models, sockets or threads; time is an argument. An engine puts jobs in as they arrive and
takes a batch whenever it is idle, so a batch is whatever came in while the last one ran: no fixed wait.

Bounds: a job that was put is returned exactly once, by `take` (in a batch or as expired) or by `cancel`; a batch holds
at most `size` jobs of one priority, in order of arrival; a solo job is a batch of its own. A job whose deadline comes
before it could be done makes way for those behind it that can still be in time, or in a long queue every job would wait
until just then and none would be; with nobody behind it, it is tried. Bulk jobs run only when no
interactive job waits, and never beside one: on a CPU each of them would make the batch longer, so an interactive job
waits for one bulk batch at most, the one that ran when it came.
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

    @property
    def bulk(self) -> bool:
        """Whether everybody who is not goes first."""


J = TypeVar("J", bound=Job)


class BatchQueue(Generic[J]):
    """Jobs that wait, by priority and in order of arrival."""

    def __init__(self) -> None:
        # dicts keep the order of arrival and find a job to cancel
        self._interactive: dict[Hashable, J] = {}
        self._bulk: dict[Hashable, J] = {}

    def __len__(self) -> int:
        return len(self._interactive) + len(self._bulk)

    def put(self, job: J) -> None:
        """Appends a job.

        Raises:
            ValueError: a job with this key waits already.
        """
        key = job.key
        if key in self._interactive or key in self._bulk:
            raise ValueError(f"job {key} is in the queue already")
        (self._bulk if job.bulk else self._interactive)[key] = job

    def cancel(self, key: Hashable) -> bool:
        """Forgets a job; False when it does not wait any more."""
        return (self._interactive.pop(key, None) or self._bulk.pop(key, None)) is not None

    def cancel_where(self, unwanted: Callable[[J], bool]) -> None:
        """Forgets every job for which `unwanted` is true."""
        for waiting in (self._interactive, self._bulk):
            for key in [key for key, job in waiting.items() if unwanted(job)]:
                del waiting[key]

    def take(self, now: float, size: int, job_s: float = 0.0) -> tuple[list[J], list[J]]:
        """Takes the next batch out of the queue.

        Args:
            now: the time.
            size: most jobs in the batch.
            job_s: what one job takes, as far as is known.

        Returns:
            The batch, empty when nothing can run, and the jobs that were met on the way and must not run: expired ones,
            and those that would expire before they were done while others would not.
        """
        late: list[J] = []
        batch = _take(self._interactive, now, size, job_s, late) or _take(self._bulk, now, size, job_s, late)
        return batch, late


def _take(waiting: dict[Hashable, J], now: float, size: int, job_s: float, late: list[J]) -> list[J]:
    """The first live jobs of one priority; late ones that are met go to `late`."""
    batch: list[J] = []
    expired: list[J] = []
    hopeless: list[J] = []
    for job in waiting.values():
        if job.deadline <= now:
            expired.append(job)
        elif batch and (job.solo or len(batch) == size):
            break
        elif job.deadline <= now + job_s:
            hopeless.append(job)
        else:
            batch.append(job)
            if job.solo:
                break
    if hopeless and not batch:  # what is known of the time may be wrong, and only trying corrects it
        batch.append(hopeless.pop())
    for job in (*batch, *expired, *hopeless):
        del waiting[job.key]
    late += expired + hopeless
    return batch
