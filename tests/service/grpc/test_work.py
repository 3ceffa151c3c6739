"""service/grpc/work.py: work that is begun at once and goes on where its promise is kept."""

import asyncio
import functools
import gc
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import ParamSpec
from weakref import ref

import pytest

from service.grpc.work import Promise, Work

_P = ParamSpec("_P")


def _in_loop(test: Callable[_P, Coroutine[object, object, None]]) -> Callable[_P, None]:
    @functools.wraps(test)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class _Log(list[str]):
    """What happened, in order."""

    async def note(self, awaited: Awaitable[object]) -> None:
        """Waits, and says what became of it."""
        self.append("begun")
        try:
            self.append(f"got {await awaited}")
        except asyncio.CancelledError:
            self.append("cancelled")
        except OSError as error:
            self.append(f"failed {error}")


@_in_loop
async def test_goes_on_where_its_promise_is_kept() -> None:
    """Not a turn of the loop later."""
    log, promise = _Log(), Promise[int]()
    Work(log.note(promise))
    log.append("waits")
    promise.keep(7)
    assert log == ["begun", "waits", "got 7"]


@_in_loop
async def test_a_promise_that_was_kept_before_is_not_waited_for() -> None:
    """Nor does a second keep change it."""
    log, promise = _Log(), Promise[int]()
    promise.keep(7)
    promise.keep(8)
    Work(log.note(promise))
    assert log == ["begun", "got 7"]


@_in_loop
async def test_cancelled_where_it_waits_and_the_promise_is_void() -> None:
    """At once, and once."""
    log, promise = _Log(), Promise[int]()
    work = Work(log.note(promise))
    work.cancel()
    promise.keep(7)
    work.cancel()
    assert log == ["begun", "cancelled"]


@_in_loop
async def test_cancelled_in_vain_once_it_has_ended() -> None:
    """Who cancels need not know that it has."""
    log, promise = _Log(), Promise[int]()
    work = Work(log.note(promise))
    promise.keep(7)
    work.cancel()
    assert log == ["begun", "got 7"]


async def _sleep() -> str:
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    return "up"


async def _thread() -> str:
    return await asyncio.to_thread(lambda: "there")


async def _error() -> str:
    await asyncio.sleep(0)
    raise OSError("none")


@pytest.mark.parametrize(
    ("waited_for", "result"),
    [(_sleep, "got up"), (_thread, "got there"), (_error, "failed none")],
)
@_in_loop
async def test_waits_for_anything_else_as_a_task(waited_for: Callable[[], Awaitable[str]], result: str) -> None:
    """Sleeps, threads, and what fails."""
    log = _Log()
    Work(log.note(waited_for()))
    assert log == ["begun"]
    while len(log) == 1:
        await asyncio.sleep(0.001)
    assert log == ["begun", result]


@pytest.mark.parametrize("turns", [0, 1, 2])
@_in_loop
async def test_the_rest_that_is_a_task_is_cancelled_too(turns: int) -> None:
    """Also before its first turn."""
    log = _Log()
    work = Work(log.note(asyncio.sleep(30)))
    for _ in range(turns):
        await asyncio.sleep(0)
    work.cancel()
    await asyncio.sleep(0.01)
    assert log == ["begun", "cancelled"]


@_in_loop
async def test_several_promises_and_a_sleep_between() -> None:
    """Behind the sleep it is a task, for which a promise is a future like others."""
    log, promises = _Log(), [Promise[int]() for _ in range(3)]

    async def wait() -> None:
        await log.note(promises[0])
        await log.note(promises[1])
        await asyncio.sleep(0)
        await log.note(promises[2])

    Work(wait())
    promises[0].keep(0)
    promises[1].keep(1)
    await asyncio.sleep(0.01)
    promises[2].keep(2)
    assert log[-1] == "begun"  # a task by now
    await asyncio.sleep(0.01)
    assert log == ["begun", "got 0", "begun", "got 1", "begun", "got 2"]


@_in_loop
async def test_has_a_context_of_its_own() -> None:
    """A request's exchange is found by it, whoever it is that keeps the promise."""
    present, seen = ContextVar("present", default=""), list[str]()

    async def work(name: str, promise: Promise[None]) -> None:
        present.set(name)
        await promise
        seen.append(present.get())
        await asyncio.sleep(0)
        seen.append(present.get())

    promises = [Promise[None](), Promise[None]()]
    for name, promise in zip("ab", promises, strict=True):
        Work(work(name, promise))
    for promise in reversed(promises):
        promise.keep(None)
    await asyncio.sleep(0.01)
    assert present.get() == ""
    assert sorted(seen) == ["a", "a", "b", "b"]
    assert seen[:2] == ["b", "a"]


@_in_loop
async def test_leaves_nothing_for_the_garbage_collector() -> None:
    """Its memory, an answer's among it, is free when it ends."""
    gc.disable()
    try:
        log, promise = _Log(), Promise[int]()
        work = Work(log.note(promise))
        left = ref(promise)
        promise.keep(7)
        del promise, work
        assert left() is None
    finally:
        gc.enable()
