"""Closed-loop load over gRPC that costs next to nothing beside what it measures, as wrk does over HTTP/1.1.

A client made with grpcio spends 0.5 ms of CPU on a call, on the same cores as the service. This one sends HTTP/2 frames
that were made beforehand and of the answer looks only at whether a message came: one thread, one call at a time on each
connection. It keeps to flow control, so it measures what a real client would see.
"""

import itertools
import selectors
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK, _END_STREAM, _END_HEADERS = 0x1, 0x1, 0x4
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 4, 5
_LARGEST_WINDOW: Final = 2**31 - 1
_DEFAULT_WINDOW: Final = 65535
_SMALLEST_ANSWER_BYTES: Final = 5
"""What stands in front of every message: a message that is there is longer."""
_HEADER_BYTES: Final = 9
_RECEIVE_BYTES: Final = 1 << 16
_SEND_BUFFER_BYTES: Final = 1 << 22


@dataclass(frozen=True)
class Calls:
    """What became of the calls that ended in time.

    Attributes:
        latencies_s: of those that were answered with a message.
        errors: how many others there were.
        seconds: how long it took.
    """

    latencies_s: list[float]
    errors: int
    seconds: float


def call_in_turn(target: str, method: str, messages: Sequence[bytes], connections: int, seconds: float) -> Calls:
    """Calls a unary method on several connections, the next call as soon as the last was answered.

    Args:
        target: host and port.
        method: such as "/package.Service/Method".
        messages: serialized requests, sent in turn.
        connections: how many.
        seconds: for how long.

    Raises:
        OSError: the server cannot be reached, or ended a connection.
    """
    head = request_head(target, method)
    bodies = itertools.cycle([body(message) for message in messages])
    clients = [_InTurn(target, head, bodies) for _ in range(connections)]
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
        started = time.monotonic()
        for client in clients:
            client.start()
        while (now := time.monotonic()) < started + seconds:
            for key, _ in selector.select(0.1):
                key.data.read(time.monotonic())
    for client in clients:
        client.socket.close()
    latencies = [latency for client in clients for latency in client.latencies_s]
    return Calls(latencies, sum(client.errors for client in clients), now - started)


class Connection(ABC):
    """One connection, one call at a time. Blocking writes: a server that does not read is not given more.

    Args:
        target: host and port.
        head: of every call; see `request_head`.
    """

    def __init__(self, target: str, head: bytes) -> None:
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # a message of tensors fits, or all connections would wait while one of them writes
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        grown = _frame(_WINDOW_UPDATE, 0, 0, struct.pack("!I", _LARGEST_WINDOW - _DEFAULT_WINDOW))
        self.socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0) + grown)
        self._head = head
        self._buffer = b""
        self._stream = -1
        self._left = memoryview(b"")
        self._begun = 0.0
        self._answered = False
        self._largest_frame = 16384
        self._first_window = _DEFAULT_WINDOW
        self._window = self._stream_window = _DEFAULT_WINDOW

    def begin(self, now: float, message: bytes) -> None:
        """Starts a call with a message as `body` makes it."""
        self._stream += 2
        self._begun = now
        self._answered = False
        self._left = memoryview(message)
        self._stream_window = self._first_window
        self._send([_frame_head(len(self._head), _HEADERS, _END_HEADERS, self._stream), self._head])

    @abstractmethod
    def ended(self, seconds: float, *, answered: bool) -> None:
        """Called at the end of each call: how long it took, and whether there was a message."""

    def read(self, now: float) -> None:
        """Takes what has arrived.

        Raises:
            OSError: the connection has ended.
        """
        chunk = self.socket.recv(_RECEIVE_BYTES)
        if not chunk:
            raise ConnectionError("the server ended a connection of the load generator")
        buffer = self._buffer + chunk if self._buffer else chunk
        at = 0
        while len(buffer) - at >= _HEADER_BYTES:
            length = int.from_bytes(buffer[at : at + 3])
            end = at + _HEADER_BYTES + length
            if end > len(buffer):
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            stream = int.from_bytes(buffer[at + 5 : at + 9])
            self._take(kind, flags, stream, buffer[at + _HEADER_BYTES : end], now)
            at = end
        self._buffer = buffer[at:]

    def _take(self, kind: int, flags: int, stream: int, body: bytes, now: float) -> None:
        if kind == _DATA:
            self._answered |= stream == self._stream and len(body) > _SMALLEST_ANSWER_BYTES
        elif (kind == _HEADERS and flags & _END_STREAM) or kind == _RST_STREAM:
            if stream == self._stream:
                self.ended(now - self._begun, answered=self._answered)
        elif kind == _WINDOW_UPDATE:
            grown = int.from_bytes(body)
            if stream == 0:
                self._window += grown
            elif stream == self._stream:
                self._stream_window += grown
            if self._left:
                self._send([])
        elif kind == _SETTINGS and not flags & _ACK:
            self._configure(body)
        elif kind == _PING and not flags & _ACK:
            self.socket.sendall(_frame(_PING, _ACK, 0, body))
        elif kind == _GOAWAY:
            raise ConnectionError("the server turned the load generator away")

    def _configure(self, body: bytes) -> None:
        for name, value in struct.iter_unpack("!HI", body):
            if name == _INITIAL_WINDOW_SIZE:
                self._stream_window += value - self._first_window
                self._first_window = value
            elif name == _MAX_FRAME_SIZE:
                self._largest_frame = value
        self.socket.sendall(_frame(_SETTINGS, _ACK, 0))
        if self._left:
            self._send([])

    def _send(self, parts: list[bytes | memoryview]) -> None:
        """Sends the parts, and as much of the message as the windows allow."""
        while self._left:
            size = min(len(self._left), self._largest_frame, self._window, self._stream_window)
            if size <= 0:
                break
            last = _END_STREAM if size == len(self._left) else 0
            parts += [_frame_head(size, _DATA, last, self._stream), self._left[:size]]
            self._left = self._left[size:]
            self._window -= size
            self._stream_window -= size
        whole = sum(map(len, parts))
        if whole:
            sent = self.socket.sendmsg(parts)
            if sent < whole:
                self.socket.sendall(b"".join(parts)[sent:])


class _InTurn(Connection):
    """The next call as soon as the last has ended."""

    def __init__(self, target: str, head: bytes, bodies: Iterator[bytes]) -> None:
        super().__init__(target, head)
        self.latencies_s: list[float] = []
        self.errors = 0
        self._bodies = bodies

    def start(self) -> None:
        self.begin(time.monotonic(), next(self._bodies))

    def ended(self, seconds: float, *, answered: bool) -> None:
        if answered:
            self.latencies_s.append(seconds)
        else:
            self.errors += 1
        self.start()


def body(message: bytes) -> bytes:
    """A message as gRPC sends it."""
    return struct.pack("!BI", 0, len(message)) + message


def _frame_head(length: int, kind: int, flags: int, stream: int) -> bytes:
    return length.to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4)


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return _frame_head(len(body), kind, flags, stream) + body


def request_head(target: str, method: str, timeout_ms: int = 30_000) -> bytes:
    """The headers of a call in HPACK: two from the static table, the others as they are."""
    post, http = b"\x83", b"\x86"
    named = b"\x04" + _text(method) + b"\x01" + _text(target) + b"\x0f\x10" + _text("application/grpc")
    others = (("te", "trailers"), ("grpc-timeout", f"{timeout_ms}m"))
    return post + http + named + b"".join(b"\0" + _text(name) + _text(value) for name, value in others)


def _text(value: str) -> bytes:
    return bytes((len(value),)) + value.encode("ascii")
