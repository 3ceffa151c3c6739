"""How a call is worked on: from its first byte on, and on from where it waits, without turns of the loop in between."""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any, Generic, TypeVar, cast

_T = TypeVar("_T")


class Promise(asyncio.Future[_T], Generic[_T]):
    """A future that lets the Work that waits for it go on at once; tasks go on a turn of the loop later, as ever.

    Attributes:
        on_kept: called when there is a result; set by who waits.
    """

    on_kept: Callable[[], None] | None = None

    def keep(self, result: _T) -> None:
        """Sets the result, unless nobody waits any more."""
        if self.done():
            return
        self.set_result(result)
        if self.on_kept:
            self.on_kept()


class Work:
    """Does a coroutine's work.

    It is begun here and now: refusals never wait, and a task costs a turn of the loop. Where it waits for a Promise, it
    goes on within `keep`. For anything else that it waits for, the rest of it becomes a task.

    Args:
        coroutine: the work.
    """

    __slots__ = ("_context", "_coroutine", "_promise", "_task")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self._context = copy_context()
        self._promise: Promise[Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._go_on()

    def cancel(self) -> None:
        """Ends it with a CancelledError where it waits; in vain when it has ended."""
        if self._task:
            self._task.cancel()
        elif self._promise and self._promise.cancel():
            self._go_on()

    def _go_on(self) -> None:
        self._promise = None  # it knows us; nobody should have to look for such a circle
        try:
            awaited = self._context.run(self._coroutine.send, None)
        except StopIteration:
            return
        if isinstance(awaited, Promise):
            self._promise = awaited
            awaited.on_kept = self._go_on
            return
        rest = cast("Coroutine[Any, Any, None]", _rest(self._coroutine, awaited))
        rest.send(None)
        self._task = asyncio.get_running_loop().create_task(rest, context=self._context)


@types.coroutine
def _rest(work: Coroutine[Any, Any, None], awaited: Any) -> Generator[Any, Any, None]:  # noqa: ANN401 - a task's own
    begun = False
    try:
        while True:
            try:
                if not begun:
                    begun = True
                    yield  # from here on, also a task that is cancelled before its first step tells the work so
                result = yield awaited
            except BaseException as error:  # noqa: BLE001 - it is the work's
                awaited = work.throw(error)
            else:
                awaited = work.send(result)
    except StopIteration:
        pass
