"""service/admission.py and service/backlog.py: what is let in can be in time, whoever else sends."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import backlog as backlogs
from service.admission import Admission
from service.backlog import Backlog
from service.errors import Overloaded


class _Engine:
    """The numbers of one engine and of two fronts there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.board = Backlog(str(path), create=True)
        self.fronts = [self.front(), self.front()]

    def front(self, slot: int | None = None) -> Backlog:
        front = Backlog(str(self.path))
        front.use(self.board.claim() if slot is None else slot)
        return front


@pytest.fixture
def start_engine(tmp_path: Path) -> Iterator[Callable[[], _Engine]]:
    """Engines' backlogs, closed afterwards."""
    engines: list[_Engine] = []

    def begin() -> _Engine:
        engines.append(_Engine(tmp_path / f"{len(engines)}.sock"))
        return engines[-1]

    yield begin
    for engine in engines:
        for one in (engine.board, *engine.fronts):
            one.close()


def _refusal(admission: Admission, seen: list[Backlog], images: int = 1, **asked: object) -> Overloaded | None:
    try:
        admission.check(seen, images, **({"bulk": False, "timeout_s": math.inf} | asked))
    except Overloaded as refusal:
        return refusal
    return None


def test_what_all_fronts_have_there_is_seen_by_each(start_engine) -> None:
    """Counts of either front are in what both see; an end clears the slot for the next front."""
    engine = start_engine()
    one, other = engine.fronts
    one.add(5, bulk=False)
    other.add(3, bulk=True)
    one.add(-2, bulk=False)
    assert one.in_flight() == other.in_flight() == engine.board.in_flight() == (3.0, 3.0)
    slot = other._slot
    engine.board.release(slot)
    assert one.in_flight() == (3.0, 0.0)
    assert engine.board.claim() == slot


def test_a_front_without_a_slot_counts_for_itself(start_engine) -> None:
    """Before its first frame, and when there are more fronts than slots, a front sees the others' and its own."""
    engine = start_engine()
    engine.fronts[0].add(5, bulk=False)
    late = Backlog(str(engine.path))
    late.add(2, bulk=False)
    late.add(1, bulk=True)
    assert late.in_flight() == (7.0, 1.0)
    assert engine.fronts[1].in_flight() == (5.0, 0.0)
    late.use(engine.board.claim())
    assert late.in_flight() == engine.fronts[1].in_flight() == (7.0, 1.0)
    late.close()
    claimed = [engine.board.claim() for _ in range(600)]
    assert claimed.count(0) == 600 - 507
    assert len(set(claimed)) == 508


def test_an_engine_that_is_gone_has_no_backlog(tmp_path: Path) -> None:
    """Its file is removed with it; a front is told at once."""
    path = tmp_path / "gone.sock"
    Backlog(str(path), create=True).close()
    backlogs.remove(path)
    backlogs.remove(path)
    with pytest.raises(FileNotFoundError):
        Backlog(str(path))


def test_what_cannot_begin_in_time_is_refused(start_engine) -> None:
    """Two engines at 10 ms an image, a target of 1 s: 71 may wait at each; the other front's count as ours do."""
    engines = [start_engine(), start_engine()]
    for engine in engines:
        engine.board.publish(0.01, 0.04)
    seen = [engine.fronts[0] for engine in engines]
    admission = Admission(1000, 1.0)
    for engine in engines:
        engine.fronts[0].add(40, bulk=False)
        engine.fronts[1].add(31, bulk=False)
    assert _refusal(admission, seen) is None
    seen[0].add(1, bulk=False)
    refusal = _refusal(admission, seen)
    assert str(refusal) == "expected to begin within 0.71 s to be in time, but 143 images wait, 0.715 s of work"
    assert refusal.retry_after_s == pytest.approx(0.005)
    assert _refusal(admission, seen, bulk=True) is None  # nobody promised it a time
    assert _refusal(Admission(1000, math.inf), seen) is None


def test_bulk_that_waits_holds_up_nobody_else(start_engine) -> None:
    """A thousand bulk images before it are one batch to an interactive one; to bulk they are all of their work."""
    engine = start_engine()
    engine.board.publish(0.01, 0.04)
    engine.fronts[1].add(1000, bulk=True)
    engine.fronts[0].add(60, bulk=False)
    admission = Admission(10_000, 1.0)
    assert _refusal(admission, engine.fronts[:1]) is None
    engine.fronts[0].add(8, bulk=False)  # 0.68 s, and 0.04 s for the batch of bulk that may have begun
    assert _refusal(admission, engine.fronts[:1]) is not None
    assert _refusal(admission, engine.fronts[:1], bulk=True, timeout_s=20.0) is None
    late = _refusal(admission, engine.fronts[:1], bulk=True, timeout_s=14.0)
    assert "1068 images wait, 10.7 s of work" in str(late)


def test_a_deadline_that_cannot_be_met_is_refused_only_while_others_wait(start_engine) -> None:
    """The caller's own limit counts with all of its images; an idle engine takes anything, to learn what it costs."""
    engine = start_engine()
    engine.board.publish(0.01, 0.04)
    admission = Admission(1000, math.inf)
    assert _refusal(admission, engine.fronts[:1], timeout_s=0.0001) is None
    engine.fronts[0].add(10, bulk=False)
    assert _refusal(admission, engine.fronts[:1], timeout_s=0.2) is None
    assert _refusal(admission, engine.fronts[:1], timeout_s=0.1) is not None
    assert _refusal(admission, engine.fronts[:1], images=10, timeout_s=0.3) is None
    assert _refusal(admission, engine.fronts[:1], images=20, timeout_s=0.3) is not None


def test_what_nobody_knows_is_let_in(start_engine) -> None:
    """No engine at present, or one that has not run a batch yet: the number of images is the only limit."""
    engine = start_engine()
    engine.fronts[0].add(10_000, bulk=False)
    admission = Admission(8, 0.001)
    assert _refusal(admission, engine.fronts[:1], images=8) is None
    assert _refusal(admission, []) is None
    assert str(_refusal(admission, [], images=9)) == (
        "expected at most 8 images in flight, there are 0 and 9 more came"
    )


def test_bulk_may_have_half_of_the_places() -> None:
    """So that it never keeps others out; and those who count out get theirs back."""
    admission = Admission(8, math.inf)
    admission.enter(4, bulk=True)
    assert _refusal(admission, [], bulk=True) is not None
    assert _refusal(admission, [], images=4) is None
    admission.enter(4, bulk=False)
    assert admission.in_flight == 8
    assert _refusal(admission, []) is not None
    admission.leave(4, bulk=True)
    assert _refusal(admission, [], images=4) is None
    assert _refusal(Admission(1, math.inf), [], bulk=True) is None


@given(
    image_s=st.floats(1e-4, 1.0),
    batch=st.integers(1, 8),
    target_s=st.floats(0.01, 10.0),
    others=st.integers(0, 300),
)
@settings(max_examples=30)
def test_whoever_is_let_in_is_in_time_at_the_learned_cost(tmp_path_factory, image_s, batch, target_s, others) -> None:
    """Filled up to the first refusal, the last one in ends within the target, unless the engine was idle."""
    path = tmp_path_factory.mktemp("engine") / "one.sock"
    engine = _Engine(path)
    engine.board.publish(image_s, image_s * batch)
    engine.fronts[1].add(others, bulk=False)
    admission = Admission(10**9, target_s)
    mine = 0
    while mine < 500 and _refusal(admission, engine.fronts[:1]) is None:
        engine.fronts[0].add(1, bulk=False)
        mine += 1
    if mine and others + mine > 1:
        assert (others + mine - 1) * image_s + image_s * batch <= target_s
    for one in (engine.board, *engine.fronts):
        one.close()


def test_a_front_that_is_late_itself_lets_fewer_in_and_keeps_refusals_back(start_engine) -> None:
    """Its lag is taken off the time there is, twice; refusals wait for up to a second, and not at all without a lag."""
    engine = start_engine()
    engine.board.publish(0.01, 0.04)
    admission, seen = Admission(1000, 1.0), engine.fronts[:1]
    engine.fronts[0].add(72, bulk=False)
    punctual = _refusal(admission, seen)
    assert punctual is not None
    assert punctual.kept_back_s == 0.0
    engine.fronts[0].add(-22, bulk=False)
    for _ in range(100):
        admission.observe_lag(0.1)
    assert _refusal(admission, seen) is None
    engine.fronts[0].add(2, bulk=False)  # 0.75 s of the target, less 0.04 for a batch, less 0.2
    late = _refusal(admission, seen)
    assert late is not None
    assert late.kept_back_s == pytest.approx(0.8)
    for _ in range(100):
        admission.observe_lag(10.0)
    assert _refusal(admission, seen).kept_back_s == 1.0
    for _ in range(100):
        admission.observe_lag(0.0)
    engine.fronts[0].add(18, bulk=False)
    assert _refusal(admission, seen) is None


_waiting = st.tuples(st.floats(1e-3, 1.0), st.integers(1, 8), st.integers(0, 50), st.integers(0, 50))


@given(engines=st.lists(_waiting, min_size=1, max_size=3), timeout_s=st.floats(0.01, 20.0), lag_s=st.floats(0, 0.004))
@settings(max_examples=200, deadline=None)
def test_a_deadline_is_refused_alone_when_all_with_it_would_be(tmp_path_factory, engines, timeout_s, lag_s) -> None:
    """Then no priority and number of images would be let in; and what one image of no bulk would be let in for, is."""
    boards = [_Engine(tmp_path_factory.mktemp("engine") / "one.sock") for _ in engines]
    for engine, (image_s, batch, interactive, bulk) in zip(boards, engines, strict=True):
        engine.board.publish(image_s, image_s * batch)
        engine.fronts[1].add(interactive, bulk=False)
        engine.fronts[1].add(bulk, bulk=True)
    seen = [engine.fronts[0] for engine in boards]
    admission = Admission(10**9, math.inf)
    admission.observe_lag(lag_s)
    try:
        admission.check_deadline([seen], timeout_s)
    except Overloaded:
        for images in (1, 9):
            assert _refusal(admission, seen, images, timeout_s=timeout_s) is not None
            assert _refusal(admission, seen, images, timeout_s=timeout_s, bulk=True) is not None
    else:
        nobody_else = not any(bulk for *_, bulk in engines)
        assert not nobody_else or _refusal(admission, seen, timeout_s=timeout_s) is None
    for engine in boards:
        for one in (engine.board, *engine.fronts):
            one.close()


def test_a_deadline_alone_is_refused_by_every_version_or_not_at_all(start_engine) -> None:
    """A version with time left, or one that is not known yet, might be asked for; and what is kept back is not said."""
    busy, calm, new = start_engine(), start_engine(), start_engine()
    for engine, waiting in ((busy, 200), (calm, 20)):
        engine.board.publish(0.01, 0.04)
        engine.fronts[0].add(waiting, bulk=False)
    new.fronts[0].add(200, bulk=False)
    versions = [engine.fronts[:1] for engine in (busy, calm, new)]
    admission = Admission(1000, 1.0)
    admission.check_deadline([], 1.0)
    admission.check_deadline(versions[:2], 1.0)
    admission.check_deadline([versions[0], versions[2]], 1.0)
    calm.fronts[0].add(60, bulk=False)
    with pytest.raises(Overloaded, match=r"expected to begin 0.09 s earlier to be in time") as refused:
        admission.check_deadline(versions[:2], 1.0)
    assert refused.value.retry_after_s == pytest.approx(0.09)
    for _ in range(100):
        admission.observe_lag(0.1)
    admission.check_deadline(versions[:2], 1.0)
