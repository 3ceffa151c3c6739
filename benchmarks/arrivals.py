"""Load whose arrivals do not wait for answers, and load whose clients do, by one event loop over either protocol.

Costs little beside what it measures: connections are kept, requests were made beforehand, and of an answer nothing is
read but its status.
"""

import asyncio
import math
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

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

Send = Callable[[int], Awaitable[str]]
"""Sends the n-th request and gives its status."""


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


async def open_loop(send: Send, per_s: float, seconds: float, ramp_s: float = 0.0) -> Seen:
    """Sends at random moments (Poisson), whatever became of the requests before; waits for the last answers.

    Args:
        send: sends.
        per_s: requests per second.
        seconds: for how long, after the ramp.
        ramp_s: how long before that; what is sent then is not seen, so that a queue that fills counts for nothing.
    """
    ramp, seen, pause = Seen(ramp_s), Seen(seconds), random.Random(0)
    under_way: set[asyncio.Task[None]] = set()
    number, begun = 0, time.monotonic()
    due = begun
    while due < begun + ramp_s + seconds:
        early = due - time.monotonic()
        if early > 0:
            await asyncio.sleep(early)
        else:
            seen.lag_s = max(seen.lag_s, -early)
        task = asyncio.create_task(_timed(send, number, due, seen if due >= begun + ramp_s else ramp))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        number += 1
        due += pause.expovariate(per_s)
    await asyncio.gather(*under_way)
    return seen


async def closed_loop(send: Send, clients: int, seconds: float) -> Seen:
    """So many clients, each of which sends its next request when it has the answer to the last.

    What is answered after the end is not seen.
    """
    seen = Seen(seconds)
    end = time.monotonic() + seconds

    async def run(client: int) -> None:
        number = 37 * client
        while (due := time.monotonic()) < end:
            await _timed(send, number, due, seen, end)
            number += 1

    await asyncio.gather(*(run(client) for client in range(clients)))
    return seen


async def _timed(send: Send, number: int, due: float, seen: Seen, end: float = math.inf) -> None:
    sent = time.monotonic()
    status = await send(number)
    if (now := time.monotonic()) <= end:
        seen.took_s.setdefault(status, []).append(now - due)
        seen.served_s.setdefault(status, []).append(now - sent)


class HttpSender:
    """POSTs images to /classify, each on a connection that is idle, or on a new one where none is.

    Args:
        url: of the service.
        images: JPEGs, sent in turn.
        timeout_ms: the deadline that the requests name; 0 for none.
        bulk: whether they are bulk work.
    """

    def __init__(self, url: str, images: Sequence[bytes], timeout_ms: int = 0, *, bulk: bool = False) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._address = host, int(port)
        self._idle: deque[_Connection] = deque()
        self._requests = []
        for image in images:
            head = f"POST /classify HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\n"
            head += f"Content-Length: {len(image)}\r\n"
            head += f"X-Request-Timeout-Ms: {timeout_ms}\r\n" if timeout_ms else ""
            head += "X-Request-Priority: bulk\r\n" if bulk else ""
            self._requests.append(f"{head}\r\n".encode() + image)

    async def __call__(self, number: int) -> str:
        """See Send."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.ended:
                break
        else:
            try:
                _, connection = await asyncio.get_running_loop().create_connection(_Connection, *self._address)
            except OSError:
                return _LOST
        status = await connection.send(self._requests[number % len(self._requests)])
        if not connection.ended:
            self._idle.append(connection)
        return status

    async def close(self) -> None:
        """Hangs up."""
        for connection in self._idle:
            connection.close()


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.ended = False
        self._transport: Any = None
        self._answer: asyncio.Future[str] | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, request: bytes) -> "asyncio.Future[str]":
        self._received = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, content = self._received.partition(b"\r\n\r\n")
        if not found or self._answer is None or self._answer.done():
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].partition(b"\r\n")[0]) if at >= 0 else 0
        if len(content) >= length:
            if b"connection: close" in lower:
                self.close()
            self._answer.set_result(head[9:12].decode())

    def connection_lost(self, _: Exception | None) -> None:
        self.ended = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(_LOST)

    def close(self) -> None:
        self.ended = True
        self._transport.close()


class GrpcSender:
    """Calls Classify of graft.v1.ImageClassifier, each call on a connection that is idle, or on a new one.

    Of a failed call it is only known when it failed, as its headers are not read: at its deadline, or before.

    Args:
        address: of the gRPC front.
        messages: serialized requests, sent in turn.
        timeout_ms: the calls' deadline.
    """

    def __init__(self, address: str, messages: Sequence[bytes], timeout_ms: int = 60_000) -> None:
        self._address = address
        self._head = request_head(address, _CLASSIFY, timeout_ms)
        self._bodies = [body(message) for message in messages]
        self._timeout_s = timeout_ms / 1e3
        self._idle: deque[_Call] = deque()

    async def __call__(self, number: int) -> str:
        """See Send."""
        try:
            call = self._idle.pop() if self._idle else _Call(self._address, self._head)
            seconds, answered = await call.send(self._bodies[number % len(self._bodies)])
        except OSError:
            return _LOST
        self._idle.append(call)
        if answered:
            return GOOD[1]
        return LATE[1] if seconds > self._timeout_s - _AT_DEADLINE_S else REFUSED

    async def close(self) -> None:
        """Hangs up."""
        for call in self._idle:
            call.close()


class _Call(Connection):
    """A connection on asyncio's loop."""

    def __init__(self, target: str, head: bytes) -> None:
        super().__init__(target, head)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.socket, self._readable)
        self._outcome: asyncio.Future[tuple[float, bool]] = self._loop.create_future()

    def send(self, message: bytes) -> "asyncio.Future[tuple[float, bool]]":
        self._outcome = self._loop.create_future()
        self.begin(time.monotonic(), message)
        return self._outcome

    def ended(self, seconds: float, *, answered: bool) -> None:
        if not self._outcome.done():  # a server that has refused a call may reset its stream besides
            self._outcome.set_result((seconds, answered))

    def _readable(self) -> None:
        try:
            self.read(time.monotonic())
        except OSError as error:
            self.close()
            if not self._outcome.done():
                self._outcome.set_exception(error)

    def close(self) -> None:
        if self.socket.fileno() >= 0:  # else the server has ended it
            self._loop.remove_reader(self.socket)
            self.socket.close()
