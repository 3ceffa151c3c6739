"""service/engine/queue.py: the batch queue keeps its bounds under every schedule."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.engine.queue import BatchQueue


@dataclass(frozen=True)
class _Job:
    key: int
    deadline: float = 100.0
    solo: bool = False
    bulk: bool = False


class _Schedules(RuleBasedStateMachine):
    """Puts, cancels and takes in any order; after each step the queue is compared with a plain list of what waits."""

    @initialize()
    def begin(self) -> None:
        self.queue: BatchQueue[_Job] = BatchQueue()
        self.now = 0.0
        self.waiting: list[_Job] = []
        self.next_key = 0

    @rule(life=st.floats(-1, 8), solo=st.booleans(), bulk=st.booleans())
    def put(self, life: float, solo: bool, bulk: bool) -> None:
        job = _Job(self.next_key, self.now + life, solo, bulk)
        self.next_key += 1
        self.queue.put(job)
        self.waiting.append(job)

    @rule(key=st.integers(0, 40))
    def cancel(self, key: int) -> None:
        there = [job for job in self.waiting if job.key == key]
        assert self.queue.cancel(key) is bool(there)
        self.waiting = [job for job in self.waiting if job.key != key]

    @rule(rest=st.integers(0, 2))
    def cancel_where(self, rest: int) -> None:
        self.queue.cancel_where(lambda job: job.key % 3 == rest)
        self.waiting = [job for job in self.waiting if job.key % 3 != rest]

    @rule(seconds=st.floats(0, 4))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(size=st.integers(1, 5))
    def take(self, size: int) -> None:
        batch, expired = self.queue.take(self.now, size)
        returned = {job.key for job in (*batch, *expired)}
        assert len(returned) == len(batch) + len(expired), "a job was returned twice"
        assert returned <= {job.key for job in self.waiting}, "a job was returned that does not wait"
        assert all(job.deadline <= self.now for job in expired), "a job was called expired before its time"
        assert all(job.deadline > self.now for job in batch), "an expired job was to run"
        assert len(batch) <= size, "a batch is too large"
        assert len(batch) == 1 or not any(job.solo for job in batch), "a solo job has neighbours"
        alive = [job for job in self.waiting if job.deadline > self.now]
        assert bool(batch) is bool(alive), "something could run and nothing was taken"
        bulk = all(job.bulk for job in alive)
        assert all(job.bulk is bulk for job in batch), "a bulk job ran before or beside an interactive one"
        due = [job for job in alive if job.bulk is bulk]
        assert batch == due[: len(batch)], "a job was overtaken by one of its own priority"
        left = due[len(batch) :]
        full = len(batch) == size or (batch and batch[0].solo)
        assert not left or full or left[0].solo, "there was room for the next job"
        self.waiting = [job for job in self.waiting if job.key not in returned]

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "queue"):
            assert len(self.queue) == len(self.waiting)

    def teardown(self) -> None:
        """However it went before: taking until it is empty returns every job that waits, once, and then nothing."""
        if hasattr(self, "queue"):
            for _ in range(len(self.waiting)):
                self.take(3)
            assert not self.waiting
            assert self.queue.take(self.now, 3) == ([], [])


TestSchedules = _Schedules.TestCase
TestSchedules.settings = settings(max_examples=150, stateful_step_count=40)


@given(st.lists(st.integers(0, 9), max_size=30, unique=True), st.integers(1, 7))
def test_batches_are_full_and_in_order_of_arrival(keys: list[int], max_batch: int) -> None:
    """Without solo or expired jobs the batches are the jobs in order, each full but the last."""
    queue: BatchQueue[_Job] = BatchQueue()
    for key in keys:
        queue.put(_Job(key))
    taken = []
    while queue:
        batch, expired = queue.take(0.0, max_batch)
        assert expired == []
        taken.append([job.key for job in batch])
    assert taken == [keys[start : start + max_batch] for start in range(0, len(keys), max_batch)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=40), st.integers(1, 5))
def test_an_interactive_job_waits_for_one_bulk_batch_at_most(schedule: list[tuple[bool, int]], size: int) -> None:
    """Whatever comes when: between its arrival and its own batch, no batch of bulk begins.

    Each step of the schedule lets jobs come, bulk or interactive, and then takes a batch.
    """
    queue: BatchQueue[_Job] = BatchQueue()
    waiting: list[int] = []
    key = 0
    for bulk, count in schedule:
        for _ in range(count):
            queue.put(_Job(key, bulk=bulk))
            if not bulk:
                waiting.append(key)
            key += 1
        batch, _ = queue.take(0.0, size)
        assert not waiting or not any(job.bulk for job in batch)
        assert waiting[: len(batch)] == [job.key for job in batch if not job.bulk]
        waiting = [one for one in waiting if one not in {job.key for job in batch}]


def test_a_solo_job_waits_for_the_batch_before_it_and_holds_up_the_next() -> None:
    """Jobs around a solo job form batches of their own."""
    queue: BatchQueue[_Job] = BatchQueue()
    for job in (_Job(1), _Job(2), _Job(3, solo=True), _Job(4)):
        queue.put(job)
    assert [[job.key for job in queue.take(0.0, 8)[0]] for _ in range(3)] == [[1, 2], [3], [4]]


def test_a_job_ends_at_its_deadline_not_after_it() -> None:
    """At the very moment of its deadline a job has expired."""
    queue: BatchQueue[_Job] = BatchQueue()
    queue.put(_Job(1, deadline=5.0))
    assert queue.take(5.0, 8) == ([], [_Job(1, deadline=5.0)])


@given(st.lists(st.floats(0, 10), min_size=1, max_size=20), st.integers(1, 5), st.floats(0, 10))
def test_a_job_that_would_be_late_makes_way_for_those_that_would_not(
    deadlines: list[float], size: int, job_s: float
) -> None:
    """Only jobs that can be in time run, in order, while there are any; with none, one of the others is tried.

    Nobody is called late who can be in time, and every call takes something.
    """
    queue: BatchQueue[_Job] = BatchQueue()
    for key, deadline in enumerate(deadlines):
        queue.put(_Job(key, 1 + deadline))
    while queue:
        before = len(queue)
        batch, late = queue.take(0.5, size, job_s)
        in_time = [job for job in batch if job.deadline > 0.5 + job_s]
        assert batch
        assert in_time == batch or (not in_time and len(batch) == 1)
        assert all(job.deadline <= 0.5 + job_s for job in late)
        assert [job.key for job in batch] == sorted(job.key for job in batch)
        assert len(queue) == before - len(batch) - len(late)
        if not in_time:
            assert not queue, "one was tried while others could have been in time"


def test_expired_jobs_take_no_room_in_a_batch() -> None:
    """A batch is filled with live jobs, whatever expired in between."""
    queue: BatchQueue[_Job] = BatchQueue()
    for key in range(6):
        queue.put(_Job(key, deadline=0.0 if key % 2 else 9.0))
    batch, expired = queue.take(1.0, 2)
    assert [job.key for job in batch] == [0, 2]
    assert {job.key for job in expired} == {1, 3}


def test_a_key_cannot_wait_twice() -> None:
    """Putting a second job under a key that waits is an error, and the first stays."""
    queue: BatchQueue[_Job] = BatchQueue()
    queue.put(_Job(1))
    with pytest.raises(ValueError, match="job 1 is in the queue already"):
        queue.put(_Job(1))
    assert queue.take(0.0, 2) == ([_Job(1)], [])
