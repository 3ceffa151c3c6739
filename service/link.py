"""A front's connection to one engine: sends jobs, hears results, notices when the engine is gone.

Owns one non-blocking Unix socket. It knows frames but not what a job means; the classifier does.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from service.backlog import Backlog
from service.reactor import Cancellable, Reactor
from service.wire import FrameReader, Kind, frame

T = TypeVar("T")
_RECEIVE_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 22
_QUIET_S = 3.0
"""An engine that works shows life every second, and between any two images."""


class Link(Generic[T]):
    """One engine as a front sees it.

    Attributes:
        jobs: what the engine holds, by number.
        suspect: what it ran alone when everybody gave it up, until it is done with it.
        accepting: False once the engine drains.
        quiet: True while it shows no life (see EngineLoop); it may hang, so others are better asked.
        backlog: what all fronts have in flight there.

    Args:
        path: the engine's socket.
        reactor: the loop that this front runs on.
        on_frame: called with every frame of the engine.
        on_lost: called once when the engine is gone; `jobs` then holds what it has not answered.

    Raises:
        OSError: nobody listens there.
    """

    def __init__(
        self,
        path: str,
        reactor: Reactor,
        on_frame: Callable[["Link[T]", Kind, int, bytes], None],
        on_lost: Callable[["Link[T]"], None],
    ) -> None:
        self.path = path
        self.jobs: dict[int, T] = {}
        self.suspect: T | None = None
        self.accepting = True
        self.quiet = False
        self.backlog = Backlog(path)
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._reactor = reactor
        self._frames = FrameReader()
        self._outgoing: list[memoryview] = []
        self._bulk: dict[int, tuple[bytes | memoryview, ...]] = {}
        self._flushing: Cancellable | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)
            # as much as the host allows: what does not fit makes the front wait and wake for every piece
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            self.backlog.close()
            raise
        self._reading: Cancellable | None = reactor.on_readable(self._socket.fileno(), self._read)

    def look(self, now: float) -> None:
        """Looks for the engine's last sign of life."""
        with suppress(OSError):  # it is gone, which its connection says
            self.quiet = now - Path(self.path).stat().st_mtime > _QUIET_S

    def send(self, *parts: bytes | memoryview) -> None:
        """Sends the parts one after the other; what the socket does not take now follows later, in order."""
        if self._reading is None:
            return
        self._outgoing.extend(memoryview(part) for part in parts if part)
        if self._flushing is None:
            self._flush()

    def send_bulk(self, number: int, *parts: bytes | memoryview) -> None:
        """Sends a job when nothing else is left to send: behind it in the socket, others could not go first."""
        self._bulk[number] = parts
        self.send()

    def cancel(self, number: int) -> None:
        """Takes a job back, whether the engine has it or not."""
        if self._bulk.pop(number, None) is None:
            self.send(frame(Kind.CANCEL, number))

    def close(self) -> None:
        """Hangs up. `on_lost` is not called."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
            self._stop_flushing()
            self._socket.close()
            self.backlog.close()

    def hear(self) -> bool:
        """Takes what the engine has said and the loop has not come to yet; whether there was anything."""
        if self._reading is None:
            return False
        try:
            chunk = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if chunk:
            self._take(chunk)
        else:
            self._lose()
        return True

    def _read(self) -> None:
        self.hear()

    def _take(self, chunk: bytes) -> None:
        for kind, number, body in self._frames.feed(chunk):
            if kind is Kind.SLOT:
                self.backlog.use(number)
                continue
            if kind is Kind.DRAINING:
                self.accepting = False
            self._on_frame(self, kind, number, body)

    def _flush(self) -> None:
        try:
            while self._outgoing or self._bulk:
                if not self._outgoing:
                    self._outgoing.extend(map(memoryview, self._bulk.pop(next(iter(self._bulk)))))
                sent = self._socket.sendmsg(self._outgoing[:64])
                while self._outgoing and sent >= len(self._outgoing[0]):
                    sent -= len(self._outgoing.pop(0))
                if sent:
                    self._outgoing[0] = self._outgoing[0][sent:]
        except BlockingIOError:
            if self._flushing is None:
                self._flushing = self._reactor.on_writable(self._socket.fileno(), self._flush)
        except OSError:
            self._stop_flushing()  # the loss is noticed by the reader, in its own turn
            self._outgoing.clear()
            self._bulk.clear()
        else:
            self._stop_flushing()

    def _stop_flushing(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None

    def _lose(self) -> None:
        self.close()
        self._on_lost(self)
