"""service/http/plain.py: what becomes of a connection whose client or classifier behaves oddly, without a service."""

import contextlib
import gc
import heapq
import itertools
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from protos.classifier_pb2 import Result
from service.call import Call
from service.errors import Overloaded
from service.exchange import Observer, present, set_present
from service.http.plain import Connection, PlainRequests
from service.metrics import IN_FLIGHT
from service.request import Answer, Request
from service.settings import Settings

_SMALL_BUFFER_BYTES = 4096


class _Handle:
    def __init__(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel

    def cancel(self) -> None:
        self._cancel()


class _Reactor:
    """A Reactor that goes on when it is told to."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._calls: dict[int, dict[int, Callable[[], None]]] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def on_readable(self, descriptor: int, call: Callable[[], None]) -> _Handle:
        return self._watch(descriptor, selectors.EVENT_READ, call)

    def on_writable(self, descriptor: int, call: Callable[[], None]) -> _Handle:
        return self._watch(descriptor, selectors.EVENT_WRITE, call)

    def call_later(self, seconds: float, call: Callable[[], None]) -> _Handle:
        one = (time.monotonic() + seconds, next(self._numbers), call)
        heapq.heappush(self._due, one)
        return _Handle(lambda: self._due.remove(one) if one in self._due else None)

    def _watch(self, descriptor: int, event: int, call: Callable[[], None]) -> _Handle:
        self._calls.setdefault(descriptor, {})[event] = call
        self._update(descriptor)

        def cancel() -> None:
            self._calls[descriptor].pop(event, None)
            self._update(descriptor)

        return _Handle(cancel)

    def _update(self, descriptor: int) -> None:
        events = sum(self._calls[descriptor])
        known = descriptor in self._selector.get_map()
        if known and events:
            self._selector.modify(descriptor, events)
        elif known:
            self._selector.unregister(descriptor)
        elif events:
            self._selector.register(descriptor, events)

    def run(self, until: Callable[[], bool]) -> None:
        """Until something holds, which must be soon."""
        end = time.monotonic() + 30
        while not until():
            assert time.monotonic() < end, "it never came true"
            for key, ready in self._selector.select(0.01) if self._selector.get_map() else ():
                for event, call in list(self._calls[key.fd].items()):
                    if event & ready:
                        call()
            while self._due and self._due[0][0] <= time.monotonic():
                heapq.heappop(self._due)[2]()

    def close(self) -> None:
        self._selector.close()

    @property
    def idle(self) -> bool:
        return not self._due and not self._selector.get_map()


class _Classifier:
    """Does what it is told with what it gets."""

    def __init__(self) -> None:
        self.submitted: list[tuple[Request, Callable[[Answer], None]]] = []
        self.cancelled = 0
        self.error: Callable[[], Exception] | None = None

    def submit(self, request: Request, done: Callable[[Answer], None]) -> Call:
        if self.error:
            raise self.error()
        self.submitted.append((request, done))
        call = Call(request, "pets", 1, 0.0)

        def end(*_: object) -> None:
            self.cancelled += 1

        call.on_end = end
        return call


class _Bench:
    """A connection, and its other end."""

    def __init__(self, limit_s: float = 30.0) -> None:
        self.reactor, self.classifier, self.last = _Reactor(), _Classifier(), False
        self.ends: list[socket.socket | None] = []
        self.observer = Observer(Settings(models=Path()))
        classifier: Any = self.classifier
        plain = PlainRequests(classifier, self.reactor, self.observer, limit_s=limit_s, max_body_bytes=1 << 20)
        own, self.client = self.sockets = socket.socketpair()
        for one in self.sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_BUFFER_BYTES)
        own.setblocking(False)
        self.client.settimeout(0)
        self.connection = Connection(plain, own, lambda _, odd: self.ends.append(odd), lambda: self.last)
        self._read = b""

    def send(self, image: bytes = b"image", more: str = "") -> None:
        head = f"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: {len(image)}\r\n{more}\r\n"
        self.client.sendall(head.encode() + image)

    def submitted(self, count: int = 1) -> None:
        self.reactor.run(lambda: len(self.classifier.submitted) >= count)

    def answer(self, label: str = "cat") -> None:
        done = self.classifier.submitted[-1][1]
        done(Answer("pets", 1, [Result(label=label)]))

    def read(self, text: bytes) -> bytes:
        """What the client got so far, once this has come."""

        def come() -> bool:
            with contextlib.suppress(BlockingIOError):
                self._read += self.client.recv(1 << 16)
            return text in self._read

        self.reactor.run(come)
        got, self._read = self._read, b""
        return got

    def close(self) -> None:
        for one in self.sockets:
            one.close()
        self.reactor.close()

    def ended(self) -> None:
        self.reactor.run(lambda: self.ends == [None])
        assert self.reactor.idle
        assert present() is None


@pytest.fixture
def bench() -> Iterator[_Bench]:
    """One whose requests have all ended when the test has."""
    bench = _Bench()
    before = IN_FLIGHT._value.get()
    yield bench
    bench.close()
    assert IN_FLIGHT._value.get() == before


def test_one_request_after_the_other(bench: _Bench) -> None:
    """What was sent ahead waits for the answer to what came before it."""
    for number in (1, 2, 3):
        bench.send(b"%d" % number)
    for number in (1, 2, 3):
        bench.submitted(number)
        time.sleep(0.01)
        assert bench.classifier.submitted[-1][0].images == (b"%d" % number,)
        bench.answer()
        assert b"200 OK" in bench.read(b'"cat"')
    assert len(bench.classifier.submitted) == 3


def test_who_hangs_up_is_forgotten(bench: _Bench) -> None:
    """Its call is cancelled, once."""
    bench.send()
    bench.submitted()
    bench.client.close()
    bench.ended()
    assert bench.classifier.cancelled == 1


def test_who_hangs_up_with_more_to_read_is_forgotten(bench: _Bench) -> None:
    """What it has sent ahead does not hide its end."""
    bench.send()
    bench.submitted()
    bench.client.sendall(b"\r\n")
    bench.client.shutdown(socket.SHUT_WR)
    bench.ended()
    assert bench.classifier.cancelled == 1


def test_who_hangs_up_within_a_request_is_forgotten(bench: _Bench) -> None:
    """Nothing is submitted, and no timer is left."""
    bench.client.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
    bench.reactor.run(lambda: not bench.reactor.idle)
    bench.client.close()
    bench.ended()
    assert not bench.classifier.submitted


def test_an_answer_that_is_not_read_waits(bench: _Bench) -> None:
    """It is written as the client reads, whole, and the next request is answered afterwards."""
    bench.send()
    bench.submitted()
    bench.send(b"next")  # while the answer is being written
    label = "cat" * 200_000
    bench.answer(label)
    assert label.encode() in bench.read(b'"batch_size":0}]}\n')
    bench.submitted(2)
    bench.answer()
    bench.read(b'"cat"')


def test_who_stops_sending_gets_what_is_being_written(bench: _Bench) -> None:
    """An end of the requests is none of the answer, once that is being written."""
    bench.send()
    bench.submitted()
    label = "cat" * 200_000
    bench.answer(label)
    bench.client.shutdown(socket.SHUT_WR)
    assert label.encode() in bench.read(b'"batch_size":0}]}\n')
    bench.ended()


def test_who_does_not_read_and_goes_is_forgotten(bench: _Bench) -> None:
    """The rest of its answer goes nowhere."""
    bench.send()
    bench.submitted()
    bench.answer("cat" * 200_000)
    bench.client.close()
    bench.ended()


def test_a_refusal_is_kept_back(bench: _Bench) -> None:
    """It goes out when it is due; who has gone by then is forgotten."""
    bench.classifier.error = lambda: Overloaded("full", kept_back_s=0.05)
    sent = time.monotonic()
    bench.send()
    assert b"Retry-After: 1" in bench.read(b"full")
    assert time.monotonic() - sent >= 0.05
    bench.classifier.error = lambda: Overloaded("full", kept_back_s=60)
    bench.send()
    bench.reactor.run(lambda: not bench.reactor.idle)
    bench.client.close()
    bench.ended()


def test_a_refusal_keeps_no_image(bench: _Bench) -> None:
    """What is kept back is the answer; the image's memory is free, and not only when garbage is looked for."""
    image = b"an image that nobody else has" * 20
    gc.collect()
    gc.disable()
    try:
        bench.classifier.error = lambda: Overloaded("full", kept_back_s=0.05)
        for _ in range(5):
            bench.send(image)
            bench.read(b"full")
        assert not [one for one in gc.get_objects() if isinstance(one, Request) and one.images == (image,)]
    finally:
        gc.enable()


def test_somebody_elses_exchange_stays_present(bench: _Bench) -> None:
    """An answer may be heard by who is asking for something else."""
    bench.send()
    bench.submitted()
    other = bench.observer.begin("http", "POST /v1/models/pets:predict")
    bench.answer()
    assert present() is other
    set_present(None)
    bench.read(b'"cat"')


def test_an_answer_that_comes_twice_is_given_once(bench: _Bench) -> None:
    """Whoever asks next gets its own."""
    bench.send()
    bench.submitted()
    bench.answer("cat")
    bench.answer("dog")
    assert b'"dog"' not in bench.read(b'"cat"')
    bench.send()
    bench.submitted(2)
    bench.answer("bird")
    assert b'"dog"' not in bench.read(b'"bird"')


def test_an_unforeseen_error_is_told(bench: _Bench) -> None:
    """The client hears of it, and the connection goes on."""
    bench.classifier.error = lambda: ValueError("of ours")
    bench.send()
    got = bench.read(b"}\n")
    assert b"500 Internal Server Error" in got
    assert b"of ours" not in got
    bench.classifier.error = None
    bench.send()
    bench.submitted()
    bench.answer()
    bench.read(b'"cat"')


def test_a_body_that_does_not_come_in_time() -> None:
    """Where the service's own limit ended it, the client was slow; it is told so, and hung up on."""
    bench = _Bench(limit_s=0.05)
    bench.client.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
    got = bench.read(b"}\n")
    assert b"408 Request Timeout" in got
    assert b"Connection: close" in got
    bench.ended()
    bench.close()


def test_the_last_answer_says_so(bench: _Bench) -> None:
    """Then the connection ends, though the client has sent more."""
    bench.send()
    bench.submitted()
    bench.last = True
    bench.answer()
    assert b"Connection: close" in bench.read(b'"cat"')
    bench.ended()


def test_who_asks_nothing_is_hung_up_on(bench: _Bench) -> None:
    """But not while it waits for its answer."""
    bench.send()
    bench.submitted()
    bench.connection.hang_up_if_idle(time.monotonic())
    bench.answer()
    bench.read(b'"cat"')
    bench.connection.hang_up_if_idle(time.monotonic() - 60)
    assert not bench.ends
    bench.connection.hang_up_if_idle(time.monotonic())
    bench.ended()


def test_an_odd_request_is_left_as_it_is(bench: _Bench) -> None:
    """Whole, on a connection that nobody watches any more."""
    odd = b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"
    bench.client.sendall(odd)
    bench.reactor.run(lambda: bool(bench.ends))
    assert bench.reactor.idle
    left = bench.ends[0]
    assert left is bench.sockets[0]
    assert left.recv(1 << 16) == odd
