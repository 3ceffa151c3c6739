"""HTTP/2 for a server of gRPC (RFC 9113): frames, header blocks and flow control of one connection.

Reads what a client sends and writes what it gets; sockets and gRPC are not known here. Why not a library: see
docs/decisions.md. Header blocks are read by `hpack`. Ours are written without a table, so they are the same bytes each
time and can be made once.
"""

import math
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, Generic, Protocol, TypeVar

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.hpack import encode_integer

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0x0, 0x1, 0x2, 0x3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 0x5, 0x6, 0x7, 0x8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x9, 0xB

_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS = 0x0, 0x1, 0x2, 0x3, 0x4
_PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0x5, 0x6, 0x7, 0x8, 0x9
_ACK, _END_STREAM, _END_HEADERS, _PADDED, _PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE = 0x1, 0x3, 0x4
_MAX_FRAME_SIZE, _MAX_HEADER_LIST_SIZE = 0x5, 0x6

_LARGEST_WINDOW: Final = 2**31 - 1
_FIRST_WINDOW_BYTES: Final = 65535
_SMALLEST_FRAME_LIMIT, _LARGEST_FRAME_LIMIT = 1 << 14, (1 << 24) - 1
_TABLE_BYTES: Final = 4096
_EMPTY_TABLE: Final = b"\x20"
"""Says that the table of our header blocks has no room; a client that allows less than the usual room waits for it."""

_FRAME_BYTES: Final = 1 << 20
"""Largest frame of data that is taken."""
HEADER_BYTES: Final = 1 << 14
"""Largest head of a request that a client is told of; see `_BLOCK_BYTES`."""
_BLOCK_BYTES: Final = 3 << 14
"""Largest header block, and largest frame that is not data. Between the two limits the request fails, and not the whole
connection."""
_LIST_BYTES: Final = 1 << 16
"""Largest list of headers that a block may become."""
_CALLS: Final = 1024
"""Streams of one connection at a time; a client keeps back what is more."""
_GRANT_BYTES: Final = 1 << 30
_KNOWN: Final = 32
_KNOWN_BYTES: Final = 1 << 10
"""So many header blocks of a connection, of so many bytes at most, are not read again when they come again."""
_SETTINGS_PER_S: Final = 100
"""More are an attack: each may have to be looked at for every stream."""
_CORKED_BYTES: Final = 1 << 16
_LONG: Final = 127
"""From so many bytes on, the length of a text in a header block takes more than one."""

_HEAD = struct.Struct("!BHBBI")
"""Of a frame: its length in three bytes, kind, flags, stream."""
_UINT32 = struct.Struct("!I")
_SETTING = struct.Struct("!HI")

Header = tuple[bytes, bytes]


class Fault(Exception):
    """What a client did against the protocol: its connection ends.

    Args:
        code: one of HTTP/2's errors.
        detail: for whoever reads the client's log.
    """

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code


H = TypeVar("H")


class Receiver(Protocol):
    """What takes a request's data.

    Attributes:
        due: when the request is to be ended, monotonic seconds.
    """

    due: float

    def expire(self) -> None:
        """Ends the request, as it is late."""

    def take(self, data: memoryview) -> None:
        """Takes data; the memory is used again afterwards."""

    def room(self) -> memoryview | None:
        """Where the next data may be written to instead of being given; None for nowhere in particular."""

    def wrote(self, size: int) -> None:
        """So many bytes were written there."""

    def said_all(self) -> None:
        """The client has."""

    def stop(self) -> None:
        """The server ends: answer what has come."""

    def give_up(self) -> None:
        """The server ends now."""

    def lose(self) -> None:
        """The client does not want an answer any more, or has gone."""

    def drained(self) -> None:
        """All that was sent so far has been passed on."""


class _Nobody:
    """Takes a stream's data when its call is over, so that neither keeps the other's memory."""

    due = math.inf

    def take(self, data: memoryview) -> None:
        """See Receiver, as for all others."""

    def room(self) -> None:
        """None."""

    def wrote(self, size: int) -> None:
        """."""

    def said_all(self) -> None:
        """."""

    stop = give_up = expire = lose = drained = said_all


_NOBODY: Final = _Nobody()


class Stream:
    """A request and its answer.

    Attributes:
        number: the stream's.
        receiver: what takes the request's data, until its call is over.
        ended: whether the client has said all.
        receive_window: bytes that the client may still send.
        send_window: bytes that it lets us send.
        outgoing: what waits for that.
        trailers: the header block behind it, which ends the stream.
    """

    __slots__ = ("ended", "number", "outgoing", "receive_window", "receiver", "send_window", "trailers")

    def __init__(self, number: int, receive_window: int, send_window: int, *, ended: bool) -> None:
        self.number = number
        self.receiver: Receiver = _NOBODY
        self.ended = ended
        self.receive_window = receive_window
        self.send_window = send_window
        self.outgoing: deque[memoryview] = deque()
        self.trailers: bytes | None = None


class Connection(Generic[H]):
    """The server's side of a connection.

    Attributes:
        blocked: True while what is written goes nowhere, as the client does not read.

    Args:
        write: sends bytes to the client.
        read: makes something of a request's headers; the same object serves all requests that begin alike.
        begin: called with every request's stream and that; returns what takes its data.
        window_bytes: data of one request that a client may send before any of it is taken.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        read: Callable[[Sequence[Header]], H],
        begin: Callable[["Connection[H]", Stream, H], Receiver],
        window_bytes: int,
    ) -> None:
        self.blocked = False
        self._out = write
        self._corked: list[bytes] | None = None  # while what has arrived is taken, what is written goes out together
        self._corked_bytes = 0
        self._read = read
        self._begin = begin
        self._window_bytes = window_bytes
        self._decoder = Decoder(max_header_list_size=_LIST_BYTES)
        self._known: dict[bytes, H] = {}  # by header block, as long as the table that blocks refer to stays the same
        self._streams: dict[int, Stream] = {}
        self._waiting: dict[int, Stream] = {}  # those of them that the client does not let us send more of
        self._last = 0
        self._greeted = False
        # how it ends: it is announced; the client has heard of it, so what comes now is refused; all else is answered
        self._announced = False
        self._refusing = False
        self._settings_since = 0.0
        self._settings = 0
        # what the client allows
        self._send_window = self._first_window = _FIRST_WINDOW_BYTES
        self._largest_frame = _SMALLEST_FRAME_LIMIT
        self._block_start = b""
        # the frame of data that is being read: whose, what is left of it and of its padding, whether it is the last
        self._reading: Stream | None = None
        self._data_left = self._padding_left = 0
        self._data_ends = False
        self._ungranted = 0
        # a header block that comes in several frames: whose, and whether its request has no data
        self._block: bytearray | None = None
        self._block_of = 0
        self._block_ends = False
        settings = (
            (_MAX_CONCURRENT_STREAMS, _CALLS),
            (_INITIAL_WINDOW_SIZE, window_bytes),
            (_MAX_FRAME_SIZE, _FRAME_BYTES),
            (_MAX_HEADER_LIST_SIZE, HEADER_BYTES),
        )
        grown = _UINT32.pack(_LARGEST_WINDOW - _FIRST_WINDOW_BYTES)
        write(
            _frame(_SETTINGS, 0, 0, b"".join(_SETTING.pack(*one) for one in settings))
            + _frame(_WINDOW_UPDATE, 0, 0, grown)
        )

    @property
    def greeted(self) -> bool:
        """Whether the client speaks HTTP/2."""
        return self._greeted

    @property
    def over(self) -> bool:
        """Whether the client knows that this ends, and nothing more is to be answered."""
        return self._refusing and not self._streams

    @property
    def streams(self) -> Sequence[Stream]:
        """Those that are not answered."""
        return list(self._streams.values())

    # -- what the client sends

    def receive(self, data: memoryview) -> int:
        """Takes what has arrived.

        Args:
            data: from where the last call ended.

        Returns:
            How many bytes were taken; the others are to be given again, with what follows them: they begin a frame, or
            `blocked` has come true.

        Raises:
            Fault: the connection cannot go on.
        """
        self._corked = []
        try:
            return self._receive(data)
        finally:
            self._uncork()
            self._corked = None

    def _receive(self, data: memoryview) -> int:
        at, end = 0, len(data)
        if not self._greeted:
            if PREFACE[:end] != data[: len(PREFACE)]:
                raise Fault(PROTOCOL_ERROR, "expected HTTP/2")
            if end < len(PREFACE):
                return 0
            at, self._greeted = len(PREFACE), True
        while True:
            if self._reading is not None or self._data_left or self._padding_left:
                at += self._take_data(data[at:])
                if self._data_left or self._padding_left:
                    return at
            if end - at < _HEAD.size or self.blocked:
                return at
            high, low, kind, flags, number = _HEAD.unpack_from(data, at)
            length, number, start = high << 16 | low, number & _LARGEST_WINDOW, at + _HEAD.size
            if kind == _DATA:
                if flags & _PADDED and start == end:
                    return at
                if self._block is not None:
                    raise Fault(PROTOCOL_ERROR, "expected the rest of a header block")
                padding = data[start] + 1 if flags & _PADDED else 0
                self._begin_data(number, length, padding, ends=bool(flags & _END_STREAM))
                at = start + (1 if padding else 0)
                continue
            if length > _BLOCK_BYTES:
                raise Fault(FRAME_SIZE_ERROR, f"expected frames of at most {_BLOCK_BYTES} bytes, got {length}")
            if end - start < length:
                return at
            at = start + length
            self._take(kind, flags, number, bytes(data[start:at]))

    def room(self) -> memoryview | None:
        """Where data may be written that would be given to `receive` otherwise, as far as it belongs there."""
        if self._reading is None or self._data_left < _SMALLEST_FRAME_LIMIT:
            return None
        room = self._reading.receiver.room()
        return None if room is None else room[: self._data_left]

    def wrote(self, size: int) -> None:
        """So many bytes were written there."""
        self._data_left -= size
        if self._reading is not None:
            self._reading.receiver.wrote(size)
        if not self._data_left and not self._padding_left:
            self._end_data()

    def lose(self) -> None:
        """The client has gone."""
        streams = self.streams
        self._streams.clear()
        self._waiting.clear()
        for stream in streams:
            self._lose(stream)

    def _begin_data(self, number: int, length: int, padding: int, *, ends: bool) -> None:
        self._require(padding <= length, PROTOCOL_ERROR, "no more padding than the frame is long")
        stream = self._streams.get(number)
        if stream is None:  # answered or given up before its end
            self._require(0 < number <= self._last, PROTOCOL_ERROR, "data of a request that was begun")
        else:
            self._require(not stream.ended, STREAM_CLOSED, "no data behind the end of a request")
            stream.receive_window -= length
            self._require(stream.receive_window >= 0, FLOW_CONTROL_ERROR, "no more data than was allowed")
            if padding:
                self.grant(stream, padding)
        self._ungranted += length
        if self._ungranted >= _GRANT_BYTES:
            self._write(_frame(_WINDOW_UPDATE, 0, 0, _UINT32.pack(self._ungranted)))
            self._ungranted = 0
        self._reading, self._data_ends = stream, ends
        self._data_left, self._padding_left = length - padding, max(0, padding - 1)

    def _take_data(self, data: memoryview) -> int:
        taken = min(self._data_left, len(data))
        if taken:
            self._data_left -= taken
            if self._reading is not None:
                self._reading.receiver.take(data[:taken])
        if not self._data_left:
            skipped = min(self._padding_left, len(data) - taken)
            self._padding_left -= skipped
            taken += skipped
            if not self._padding_left:
                self._end_data()
        return taken

    def _end_data(self) -> None:
        stream, self._reading = self._reading, None
        if stream is not None and self._data_ends:
            stream.ended = True
            stream.receiver.said_all()

    def _take(self, kind: int, flags: int, number: int, body: bytes) -> None:
        if self._block is not None and (kind != _CONTINUATION or number != self._block_of):
            raise Fault(PROTOCOL_ERROR, "expected the rest of a header block")
        if kind == _HEADERS:
            self._begin_block(flags, number, body)
        elif kind == _CONTINUATION:
            self._continue_block(flags, body)
        elif kind == _WINDOW_UPDATE:
            self._widen(number, body)
        elif kind == _RST_STREAM:
            self._require(len(body) == _UINT32.size, FRAME_SIZE_ERROR, "a RST_STREAM of 4 bytes")
            self._require(0 < number <= self._last, PROTOCOL_ERROR, "RST_STREAM of a stream that was begun")
            if number in self._streams:
                self._lose(self._streams[number])
        elif kind == _SETTINGS:
            self._configure(flags, number, body)
        elif kind == _PING:
            self._require(len(body) == 8, FRAME_SIZE_ERROR, "a PING of 8 bytes")
            self._require(number == 0, PROTOCOL_ERROR, "a PING of no stream")
            if not flags & _ACK:
                self._write(_frame(_PING, _ACK, 0, body))
            elif self._announced:
                self.refuse()
        elif kind == _PRIORITY:
            self._require(len(body) == 5, FRAME_SIZE_ERROR, "a PRIORITY of 5 bytes")
        elif kind == _PUSH_PROMISE:
            raise Fault(PROTOCOL_ERROR, "a client that promises to push")
        # GOAWAY says that the client begins nothing more; of kinds that are not known nothing is expected

    @staticmethod
    def _require(condition: bool, code: int, expected: str) -> None:
        if not condition:
            raise Fault(code, f"expected {expected}")

    def _begin_block(self, flags: int, number: int, body: bytes) -> None:
        start = padding = 0
        if flags & _PADDED:
            self._require(len(body) > 0, FRAME_SIZE_ERROR, "the length of the padding")
            start, padding = 1, body[0]
        if flags & _PRIORITIZED:
            start += 5
        self._require(start + padding <= len(body), PROTOCOL_ERROR, "no more padding than the frame is long")
        block, ends = body[start : len(body) - padding], bool(flags & _END_STREAM)
        if flags & _END_HEADERS:
            self._open(number, block, ends=ends)
        else:
            self._block, self._block_of, self._block_ends = bytearray(block), number, ends

    def _continue_block(self, flags: int, body: bytes) -> None:
        block = self._block
        if block is None:
            raise Fault(PROTOCOL_ERROR, "the rest of a header block that was never begun")
        block += body
        if len(block) > _BLOCK_BYTES:
            raise Fault(ENHANCE_YOUR_CALM, f"expected at most {HEADER_BYTES} bytes of headers")
        if flags & _END_HEADERS:
            self._block = None
            self._open(self._block_of, bytes(block), ends=self._block_ends)

    def _open(self, number: int, block: bytes, *, ends: bool) -> None:
        head = self._known.get(block) or self._decode(block)
        stream = self._streams.get(number)
        if stream is not None:  # what stands behind a request's data; nothing in it is of use
            self._require(ends and not stream.ended, PROTOCOL_ERROR, "one end of a request")
            stream.ended = True
            stream.receiver.said_all()
            return
        self._require(number % 2 == 1, PROTOCOL_ERROR, "a stream of a client's")
        if number <= self._last:
            return  # of a request that was answered or given up before its end
        self._last = number
        if self._refusing or len(self._streams) >= _CALLS:
            self._write(_frame(_RST_STREAM, 0, number, _UINT32.pack(REFUSED_STREAM)))
            return
        stream = Stream(number, self._window_bytes, self._first_window, ended=ends)
        self._streams[number] = stream
        receiver = self._begin(self, stream, head)
        if number in self._streams:  # else it was answered at once
            stream.receiver = receiver
            if ends:
                receiver.said_all()

    def _decode(self, block: bytes) -> H:
        table = self._decoder.header_table
        before = (table.maxsize, *table.dynamic_entries)
        try:
            headers = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError as error:
            raise Fault(ENHANCE_YOUR_CALM, f"expected at most {HEADER_BYTES} bytes of headers") from error
        except HPACKError as error:
            raise Fault(COMPRESSION_ERROR, str(error)) from error
        head = self._read(headers)
        if (table.maxsize, *table.dynamic_entries) != before or len(self._known) == _KNOWN:
            self._known.clear()
        elif len(block) <= _KNOWN_BYTES:
            self._known[block] = head
        return head

    def _widen(self, number: int, body: bytes) -> None:
        self._require(len(body) == _UINT32.size, FRAME_SIZE_ERROR, "a WINDOW_UPDATE of 4 bytes")
        grown = _UINT32.unpack(body)[0] & _LARGEST_WINDOW
        self._require(grown > 0, PROTOCOL_ERROR, "a window that grows")
        if number == 0:
            self._send_window += grown
            self._require(self._send_window <= _LARGEST_WINDOW, FLOW_CONTROL_ERROR, "a window below 2 GiB")
            self._pump_all()
        elif number in self._streams:
            stream = self._streams[number]
            stream.send_window += grown
            self._require(stream.send_window <= _LARGEST_WINDOW, FLOW_CONTROL_ERROR, "a window below 2 GiB")
            self._pump(stream)
        else:
            self._require(number <= self._last, PROTOCOL_ERROR, "WINDOW_UPDATE of a stream that was begun")

    def _configure(self, flags: int, number: int, body: bytes) -> None:
        self._require(number == 0, PROTOCOL_ERROR, "SETTINGS of no stream")
        if flags & _ACK:
            self._require(not body, FRAME_SIZE_ERROR, "nothing in an answer to SETTINGS")
            return
        self._require(len(body) % _SETTING.size == 0, FRAME_SIZE_ERROR, "SETTINGS of 6 bytes each")
        now = time.monotonic()
        if now > self._settings_since + 1:
            self._settings_since, self._settings = now, 0
        self._settings += 1
        self._require(self._settings <= _SETTINGS_PER_S, ENHANCE_YOUR_CALM, f"{_SETTINGS_PER_S} SETTINGS a second")
        chosen: dict[int, int] = dict(_SETTING.iter_unpack(body))
        self._largest_frame = chosen.get(_MAX_FRAME_SIZE, self._largest_frame)
        allowed = _SMALLEST_FRAME_LIMIT <= self._largest_frame <= _LARGEST_FRAME_LIMIT
        self._require(allowed, PROTOCOL_ERROR, "frames of 16 KiB to 16 MiB")
        if chosen.get(_HEADER_TABLE_SIZE, _TABLE_BYTES) < _TABLE_BYTES:
            self._block_start = _EMPTY_TABLE
        first = chosen.get(_INITIAL_WINDOW_SIZE, self._first_window)
        self._require(first <= _LARGEST_WINDOW, FLOW_CONTROL_ERROR, "a window below 2 GiB")
        grown, self._first_window = first - self._first_window, first
        if grown:
            for stream in self._streams.values():
                stream.send_window += grown
                self._require(stream.send_window <= _LARGEST_WINDOW, FLOW_CONTROL_ERROR, "a window below 2 GiB")
        self._write(_frame(_SETTINGS, _ACK, 0))
        self._pump_all()

    # -- what the client gets

    def grant(self, stream: Stream, size: int) -> None:
        """Lets the client send so many bytes more of a request."""
        stream.receive_window += size
        if not stream.ended and stream.number in self._streams:
            self._write(_frame(_WINDOW_UPDATE, 0, stream.number, _UINT32.pack(size)))

    def send(self, stream: Stream, head: bytes, data: bytes = b"", trailers: bytes | None = None) -> None:
        """Sends a part of an answer.

        Args:
            stream: whose.
            head: its header block; empty for nothing.
            data: what follows, as far as the client allows; the rest when it does.
            trailers: the header block that ends it, behind the data; None when there is more to come.
        """
        if stream.number not in self._streams:
            return
        parts: list[bytes] = []
        if head:
            parts += self._headers(stream, head)
        if data:
            size = len(data)
            if not stream.outgoing and size <= min(self._send_window, stream.send_window, self._largest_frame):
                self._send_window -= size
                stream.send_window -= size
                parts += _head(size, _DATA, 0, stream.number), data
            else:
                stream.outgoing.append(memoryview(data))
                self._waiting[stream.number] = stream
        stream.trailers = trailers
        if trailers is not None and not stream.outgoing:
            parts += self._end(stream, trailers)
        self._write(b"".join(parts))
        if stream.outgoing:
            self._pump(stream)

    def drop(self, stream: Stream) -> None:
        """Forgets what was to be sent and waits for the client."""
        stream.outgoing.clear()
        self._waiting.pop(stream.number, None)

    def reset(self, stream: Stream, code: int) -> None:
        """Ends a stream without an answer."""
        if self._remove(stream):
            self._write(_frame(_RST_STREAM, 0, stream.number, _UINT32.pack(code)))

    def announce_end(self) -> None:
        """Says that nothing more should be begun; what was begun before the client has heard of it is still taken."""
        self._announced = True
        self._write(_goaway(_LARGEST_WINDOW, NO_ERROR) + _frame(_PING, 0, 0, b"the end."))

    def refuse(self) -> None:
        """Takes nothing more. What the client began before it heard of the end has come, or it has had its time."""
        if not self._refusing:
            self._refusing = True
            self._write(_goaway(self._last, NO_ERROR))

    def fail(self, fault: Fault) -> None:
        """Says why the connection ends."""
        self._write(_goaway(self._last, fault.code, str(fault).encode()))

    def _headers(self, stream: Stream, block: bytes, flags: int = _END_HEADERS) -> tuple[bytes, ...]:
        block, self._block_start = self._block_start + block, b""
        return _head(len(block), _HEADERS, flags, stream.number), block

    def _end(self, stream: Stream, trailers: bytes) -> list[bytes]:
        self._remove(stream)
        parts = [*self._headers(stream, trailers, _END_HEADERS | _END_STREAM)]
        if not stream.ended:  # the rest of the request is of no use
            parts.append(_frame(_RST_STREAM, 0, stream.number, _UINT32.pack(NO_ERROR)))
        return parts

    def _lose(self, stream: Stream) -> None:
        receiver = stream.receiver
        self._remove(stream)
        receiver.lose()

    def _remove(self, stream: Stream) -> bool:
        """Forgets a stream; whether it was known."""
        self.drop(stream)
        stream.receiver = _NOBODY
        return self._streams.pop(stream.number, None) is not None

    def _pump_all(self) -> None:
        for stream in list(self._waiting.values()):
            if self._send_window <= 0:
                return
            if stream.send_window > 0:
                self._pump(stream)

    def _pump(self, stream: Stream) -> None:
        """Sends what waits, as far as the client allows."""
        parts: list[bytes | memoryview] = []
        while stream.outgoing:
            data = stream.outgoing[0]
            size = min(len(data), self._send_window, stream.send_window, self._largest_frame)
            if size <= 0:
                break
            self._send_window -= size
            stream.send_window -= size
            parts += _head(size, _DATA, 0, stream.number), data[:size]
            if size < len(data):
                stream.outgoing[0] = data[size:]
            else:
                stream.outgoing.popleft()
        if parts and not stream.outgoing:
            self._waiting.pop(stream.number, None)
            if stream.trailers is not None:
                parts += self._end(stream, stream.trailers)
            else:
                stream.receiver.drained()
        if parts:
            self._write(b"".join(parts))

    def _write(self, data: bytes) -> None:
        if self._corked is None:
            self._out(data)
            return
        self._corked.append(data)
        self._corked_bytes += len(data)
        if self._corked_bytes > _CORKED_BYTES:
            self._uncork()

    def _uncork(self) -> None:
        if self._corked:
            self._out(b"".join(self._corked))
            self._corked.clear()
            self._corked_bytes = 0


def literal(name: str, value: str) -> bytes:
    """A field of a header block, in ASCII, that neither needs nor changes a table."""
    size = len(value)
    if size < _LONG:
        return _named(name) + bytes((size,)) + value.encode("ascii")
    return _named(name) + bytes(encode_integer(size, 7)) + value.encode("ascii")


@cache
def _named(name: str) -> bytes:
    """How a field begins; names are our own."""
    return b"\0" + bytes(encode_integer(len(name), 7)) + name.encode("ascii")


def _head(length: int, kind: int, flags: int, number: int) -> bytes:
    return _HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, number)


def _frame(kind: int, flags: int, number: int, body: bytes = b"") -> bytes:
    return _head(len(body), kind, flags, number) + body


def _goaway(last: int, code: int, detail: bytes = b"") -> bytes:
    return _frame(_GOAWAY, 0, 0, struct.pack("!II", last, code) + detail)
