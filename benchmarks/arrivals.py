"""Load whose arrivals do not wait for answers, and load whose clients do, by one thread over either protocol.

Costs little beside what it measures: connections are kept, requests were made beforehand, of an answer nothing is read
but its status, and one poll waits for all of them.
"""

import heapq
import itertools
import random
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from benchmarks.grpc_load import Connection, body, request_head

GOOD: Final = ("200", "OK")
"""The status of an answer, over HTTP and over gRPC."""

LATE: Final = ("504", "late")
"""The status of a request that was let in and not answered in time."""

REFUSED: Final = "refused"
"""The status of a call over gRPC that failed before its deadline."""

_LOST: Final = "no answer"
_CLASSIFY: Final = "/graft.v1.ImageClassifier/Classify"
_AT_DEADLINE_S: Final = 0.005
_RECEIVE_BYTES: Final = 1 << 16
_SEND_BUFFER_BYTES: Final = 1 << 20
_CONNECT_S: Final = 30
_APART: Final = 37
"""Clients that wait begin so many images apart."""

Done = Callable[[str], None]
"""Takes the status of a request."""


@dataclass
class Seen:
    """What clients saw.

    Attributes:
        seconds: that were measured.
        took_s: seconds of every request by its status, from the moment that it was due.
        served_s: the same from the moment that it was sent, which is when its deadline begins.
        lag_s: by how much the generator itself was late at most.
    """

    seconds: float
    took_s: dict[str, list[float]] = field(default_factory=dict)
    served_s: dict[str, list[float]] = field(default_factory=dict)
    lag_s: float = 0.0

    @property
    def codes(self) -> Counter[str]:
        """Requests by status."""
        return Counter({status: len(took) for status, took in sorted(self.took_s.items())})

    @property
    def good_s(self) -> list[float]:
        """Seconds of the answers, ascending."""
        return sorted(took for status in GOOD for took in self.took_s.get(status, ()))

    @property
    def per_s(self) -> float:
        """Answers per second."""
        return len(self.good_s) / self.seconds

    def percentile_ms(self, share: float) -> float:
        """Milliseconds that this share of the answers does not exceed."""
        good = self.good_s
        return 1e3 * good[min(len(good) - 1, int(share * len(good)))] if good else float("nan")

    def add(self, status: str, due: float, sent: float, ended: float) -> None:
        """Adds a request."""
        self.took_s.setdefault(status, []).append(ended - due)
        self.served_s.setdefault(status, []).append(ended - sent)


class Loop:
    """Waits for all connections and for the moments at which something is due.

    Attributes:
        look_every_s: how often at most it looks, to do then all that has come to be done. A load that is woken by every
            request and every answer interrupts a service that shares its cores, which clients elsewhere would not; but
            what is due is late by up to that, and answers seem to take so much longer.
    """

    def __init__(self) -> None:
        self.look_every_s = 0.0
        self._poll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._waiting = 0

    def watch(self, descriptor: int, reader: Callable[[], None]) -> None:
        """Calls `reader` whenever there is something to read."""
        self._readers[descriptor] = reader
        self._poll.register(descriptor, select.EPOLLIN)

    def forget(self, descriptor: int) -> None:
        """No longer; call it before the descriptor is closed."""
        del self._readers[descriptor]
        self._poll.unregister(descriptor)

    def call_at(self, due: float, call: Callable[[], None]) -> None:
        """Calls `call` at a time, monotonic seconds."""
        heapq.heappush(self._due, (due, next(self._numbers), call))

    def begin(self) -> None:
        """Something is under way that is to be waited for."""
        self._waiting += 1

    def end(self) -> None:
        """It has ended."""
        self._waiting -= 1

    def run(self) -> None:
        """Returns when nothing is due any more and nothing under way."""
        while self._due or self._waiting:
            time.sleep(self.look_every_s)
            wait_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else -1
            for descriptor, _ in self._poll.poll(wait_s):
                if reader := self._readers.get(descriptor):
                    reader()
            while self._due and self._due[0][0] <= time.monotonic():
                heapq.heappop(self._due)[2]()


class Sender(Protocol):
    """Sends requests."""

    @property
    def loop(self) -> Loop:
        """Where it waits for answers."""

    def send(self, number: int, done: Done) -> None:
        """Sends the n-th request; `done` hears of its end."""


def open_loop(sender: Sender, per_s: float, seconds: float, ramp_s: float = 0.0) -> Seen:
    """Sends at random moments (Poisson), whatever became of the requests before; waits for the last answers.

    Args:
        sender: sends.
        per_s: requests per second.
        seconds: for how long, after the ramp.
        ramp_s: how long before that; what is sent then is not seen, so that a queue that fills counts for nothing.
    """
    seen = begin_open(sender, per_s, seconds, ramp_s)
    sender.loop.run()
    return seen


def begin_open(sender: Sender, per_s: float, seconds: float, ramp_s: float = 0.0) -> Seen:
    """The same beside other load on the sender's loop; seen when that has run."""
    loop, seen, pause, numbers = sender.loop, Seen(seconds), random.Random(0), itertools.count()
    begun = time.monotonic()

    def arrive(due: float) -> None:
        sent = time.monotonic()
        seen.lag_s = max(seen.lag_s, sent - due)
        loop.begin()

        def done(status: str) -> None:
            loop.end()
            if due >= begun + ramp_s:
                seen.add(status, due, sent, time.monotonic())

        following = due + pause.expovariate(per_s)
        if following < begun + ramp_s + seconds:
            loop.call_at(following, lambda: arrive(following))
        sender.send(next(numbers), done)

    loop.call_at(begun, lambda: arrive(begun))
    return seen


def closed_loop(sender: Sender, clients: int, seconds: float) -> Seen:
    """So many clients, each of which sends its next request when it has the answer to the last.

    What is answered after the end is not seen.
    """
    seen = begin_closed(sender, clients, seconds)
    sender.loop.run()
    return seen


def begin_closed(sender: Sender, clients: int, seconds: float) -> Seen:
    """The same beside other load on the sender's loop; seen when that has run."""
    loop, seen, end = sender.loop, Seen(seconds), time.monotonic() + seconds

    def ask(number: int) -> None:
        sent = time.monotonic()
        loop.begin()

        def done(status: str) -> None:
            loop.end()
            ended = time.monotonic()
            if ended <= end:
                seen.add(status, sent, sent, ended)
                loop.call_at(ended, lambda: ask(number + 1))

        sender.send(number, done)

    for client in range(clients):
        ask(_APART * client)
    return seen


class HttpSender:
    """POSTs images to /classify, each on a connection that is idle, or on a new one where none is.

    Args:
        loop: on which it waits.
        url: of the service.
        images: JPEGs, sent in turn.
        timeout_ms: the deadline that the requests name; 0 for none.
    """

    def __init__(self, loop: Loop, url: str, images: Sequence[bytes], timeout_ms: int = 0) -> None:
        self.loop = loop
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._address = host, int(port)
        self._idle: deque[_Exchange] = deque()
        self._requests = []
        for image in images:
            head = f"POST /classify HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\n"
            head += f"Content-Length: {len(image)}\r\n"
            head += f"X-Request-Timeout-Ms: {timeout_ms}\r\n" if timeout_ms else ""
            self._requests.append(f"{head}\r\n".encode() + image)

    def send(self, number: int, done: Done) -> None:
        """See Sender."""
        try:
            exchange = self._idle.pop() if self._idle else _Exchange(self.loop, self._address, self._idle)
        except OSError:
            done(_LOST)
            return
        exchange.begin(self._requests[number % len(self._requests)], done)

    def close(self) -> None:
        """Hangs up."""
        while self._idle:
            self._idle.pop().close()


class _Exchange:
    """A connection of HTTP/1.1, one request at a time. Blocking writes, as in grpc_load.py."""

    def __init__(self, loop: Loop, address: tuple[str, int], idle: "deque[_Exchange]") -> None:
        self._loop = loop
        self._idle = idle
        self._socket = socket.create_connection(address, timeout=_CONNECT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._done: Done | None = None
        self._received = b""
        loop.watch(self._socket.fileno(), self._read)

    def begin(self, request: bytes, done: Done) -> None:
        self._received, self._done = b"", done
        try:
            self._socket.sendall(request)
        except OSError:
            self._end(_LOST)

    def close(self) -> None:
        self._loop.forget(self._socket.fileno())
        self._socket.close()

    def _read(self) -> None:
        try:
            chunk = self._socket.recv(_RECEIVE_BYTES)
        except OSError:
            chunk = b""
        if not chunk:
            self._end(_LOST)
            return
        self._received += chunk
        head, found, content = self._received.partition(b"\r\n\r\n")
        if not found or self._done is None:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].partition(b"\r\n")[0]) if at >= 0 else 0
        if len(content) >= length:
            self._end(head[9:12].decode(), last=b"connection: close" in lower)

    def _end(self, status: str, *, last: bool = False) -> None:
        done, self._done = self._done, None
        if last or status == _LOST:
            self.close()
            if done is None:
                self._idle.remove(self)
        else:
            self._idle.append(self)
        if done is not None:
            done(status)


class GrpcSender:
    """Calls Classify of graft.v1.ImageClassifier, each call on a connection that is idle, or on a new one.

    Of a failed call it is only known when it failed, as its headers are not read: at its deadline, or before.

    Args:
        loop: on which it waits.
        address: of the gRPC front.
        messages: serialized requests, sent in turn.
        timeout_ms: the calls' deadline.
    """

    def __init__(self, loop: Loop, address: str, messages: Sequence[bytes], timeout_ms: int = 60_000) -> None:
        self.loop = loop
        self._address = address
        self._head = request_head(address, _CLASSIFY, timeout_ms)
        self._bodies = [body(message) for message in messages]
        self._timeout_s = timeout_ms / 1e3
        self._idle: deque[_Call] = deque()

    def send(self, number: int, done: Done) -> None:
        """See Sender."""
        message = self._bodies[number % len(self._bodies)]
        try:
            call = self._idle.pop() if self._idle else _Call(self.loop, self._address, self._head, self._timeout_s)
        except OSError:
            done(_LOST)
            return
        call.ask(message, self._idle, done)

    def close(self) -> None:
        """Hangs up."""
        while self._idle:
            self._idle.pop().close()


class _Call(Connection):
    """A connection of HTTP/2, one call at a time."""

    def __init__(self, loop: Loop, target: str, head: bytes, timeout_s: float) -> None:
        super().__init__(target, head)
        self._loop = loop
        self._timeout_s = timeout_s
        self._idle: deque[_Call] = deque()
        self._done: Done | None = None
        loop.watch(self.socket.fileno(), self._read)

    def ask(self, message: bytes, idle: "deque[_Call]", done: Done) -> None:
        """Begins a call; the connection is idle again when `done` hears of its end."""
        self._idle, self._done = idle, done
        try:
            self.begin(time.monotonic(), message)
        except OSError:
            self._lose()

    def ended(self, seconds: float, *, answered: bool) -> None:
        done, self._done = self._done, None
        if done is None:  # a server that has refused a call may reset its stream besides
            return
        self._idle.append(self)
        late = seconds > self._timeout_s - _AT_DEADLINE_S
        done(GOOD[1] if answered else LATE[1] if late else REFUSED)

    def close(self) -> None:
        """Hangs up."""
        self._loop.forget(self.socket.fileno())
        self.socket.close()

    def _read(self) -> None:
        try:
            self.read(time.monotonic())
        except OSError:
            self._lose()

    def _lose(self) -> None:
        self.close()
        done, self._done = self._done, None
        if done is not None:
            done(_LOST)
        elif self in self._idle:
            self._idle.remove(self)
