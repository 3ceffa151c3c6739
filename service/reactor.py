"""The seam between the classifier and a front's event loop: watch a socket, call later.

The HTTP front runs on gevent, the gRPC front on asyncio. With these few calls behind a protocol, the classifier and its
links are written once, without locks: everything happens in the one thread of the loop.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol


class Cancellable(Protocol):
    """Something that was arranged and can be called off."""

    def cancel(self) -> None:
        """Calls it off; harmless when it has happened already."""


class Reactor(Protocol):
    """What the classifier needs of an event loop."""

    def on_readable(self, descriptor: int, call: Callable[[], None]) -> Cancellable:
        """Calls whenever the descriptor can be read, until cancelled."""

    def on_writable(self, descriptor: int, call: Callable[[], None]) -> Cancellable:
        """Calls whenever the descriptor can be written, until cancelled."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> Cancellable:
        """Calls once."""


class _Handle:
    def __init__(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel

    def cancel(self) -> None:
        self._cancel()


class AsyncioReactor:
    """A Reactor on an asyncio loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def on_readable(self, descriptor: int, call: Callable[[], None]) -> Cancellable:
        """See Reactor."""
        self._loop.add_reader(descriptor, call)
        return _Handle(lambda: self._loop.remove_reader(descriptor))

    def on_writable(self, descriptor: int, call: Callable[[], None]) -> Cancellable:
        """See Reactor."""
        self._loop.add_writer(descriptor, call)
        return _Handle(lambda: self._loop.remove_writer(descriptor))

    def call_later(self, seconds: float, call: Callable[[], None]) -> Cancellable:
        """See Reactor."""
        return self._loop.call_later(seconds, call)


class GeventReactor:
    """A Reactor on the gevent hub of this thread. `call` runs in the hub and must not wait for anything."""

    _READ, _WRITE = 1, 2

    def __init__(self) -> None:
        import gevent  # noqa: PLC0415 - the gRPC front and the trainer do not pay for gevent

        self._loop: Any = gevent.get_hub().loop

    def on_readable(self, descriptor: int, call: Callable[[], None]) -> Cancellable:
        """See Reactor."""
        return self._watch(descriptor, self._READ, call)

    def on_writable(self, descriptor: int, call: Callable[[], None]) -> Cancellable:
        """See Reactor."""
        return self._watch(descriptor, self._WRITE, call)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Cancellable:
        """See Reactor."""
        timer = self._loop.timer(seconds)
        timer.start(call)
        return _Handle(timer.stop)

    def _watch(self, descriptor: int, events: int, call: Callable[[], None]) -> Cancellable:
        watcher = self._loop.io(descriptor, events)
        watcher.start(call)
        return _Handle(watcher.stop)
