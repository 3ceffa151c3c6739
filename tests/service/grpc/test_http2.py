"""service/grpc/http2.py: what comes out of it for what goes in, whatever the pieces."""

import struct
from collections.abc import Sequence

import pytest
from hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from service.grpc import http2
from service.grpc.http2 import PREFACE, Connection, Fault, Header, Stream, literal

_WINDOW = 1000
_DATA, _HEADERS, _PRIORITY, _RST, _SETTINGS, _PUSH, _PING, _GOAWAY, _WIDER, _CONTINUATION = range(10)
_END, _ACK, _WHOLE, _PADDED, _PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
_BLOCK = Encoder().encode([(":method", "POST"), (":path", "/a.B/C"), ("content-type", "application/grpc")])
_MOST = 2**31 - 1


def _frame(kind: int, flags: int = 0, number: int = 0, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3) + bytes((kind, flags)) + number.to_bytes(4) + body


def _begin(number: int = 1, *, end: bool = False) -> bytes:
    return _frame(_HEADERS, _WHOLE | (_END if end else 0), number, _BLOCK)


def _wider(number: int, size: int) -> bytes:
    return _frame(_WIDER, 0, number, size.to_bytes(4))


def _setting(name: int, value: int) -> bytes:
    return _frame(_SETTINGS, 0, 0, struct.pack("!HI", name, value))


class _Taker:
    """Takes a request's data, or lets it be written into a buffer, and remembers."""

    due = float("inf")

    def __init__(self, room: int = 0) -> None:
        self.data = b""
        self.said: list[str] = []
        self.drains = 0
        self._buffer = bytearray(room)

    def take(self, data: memoryview) -> None:
        self.data += data

    def room(self) -> memoryview | None:
        return memoryview(self._buffer) if self._buffer else None

    def wrote(self, size: int) -> None:
        self.data += self._buffer[:size]

    def said_all(self) -> None:
        self.said.append("end")

    def give_up(self) -> None:
        raise AssertionError

    def lose(self) -> None:
        self.said.append("lose")

    def stop(self) -> None:
        self.said.append("stop")

    def drained(self) -> None:
        self.drains += 1

    def expire(self) -> None:
        raise AssertionError


class _Server:
    """A connection, what it has written, and the requests that it has begun."""

    def __init__(self, room: int = 0, window: int = _WINDOW) -> None:
        self.written = b""
        self.heads: list[Sequence[Header]] = []
        self.streams: dict[int, Stream] = {}
        self.takers: dict[int, _Taker] = {}
        self._room = room
        self._left = b""
        self.connection = Connection(self._write, self._read, self._open, window)
        self.written = b""

    def _write(self, data: bytes) -> None:
        self.written += data

    def _read(self, headers: Sequence[Header]) -> Sequence[Header]:
        return headers

    def _open(self, _: Connection[Sequence[Header]], stream: Stream, head: Sequence[Header]) -> _Taker:
        self.heads.append(head)
        self.streams[stream.number] = stream
        self.takers[stream.number] = _Taker(self._room)
        return self.takers[stream.number]

    def hear(self, data: bytes) -> "_Server":
        """Gives it what has arrived, as the transport does."""
        while data:
            room = None if self._left else self.connection.room()
            if room is not None:
                size = min(len(room), len(data))
                room[:size] = data[:size]
                self.connection.wrote(size)
                data = data[size:]
            else:
                whole = self._left + data
                self._left = whole[self.connection.receive(memoryview(whole)) :]
                return self
        return self

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """What was written: kind, flags, stream, body."""
        found, at = [], 0
        while at < len(self.written):
            size = int.from_bytes(self.written[at : at + 3])
            kind, flags, number = struct.unpack_from("!BBI", self.written, at + 3)
            found.append((kind, flags, number, self.written[at + 9 : at + 9 + size]))
            at += 9 + size
        assert at == len(self.written)
        return found


@pytest.fixture
def server() -> _Server:
    """One that has been greeted."""
    return _Server().hear(PREFACE + _frame(_SETTINGS))


def test_a_request_and_its_answer(server: _Server) -> None:
    """Headers, data and an end go in; headers, data and trailers come out in one piece."""
    server.hear(_begin() + _frame(_DATA, 0, 1, b"ab") + _frame(_DATA, _END, 1, b"c"))
    assert server.heads == [[(b":method", b"POST"), (b":path", b"/a.B/C"), (b"content-type", b"application/grpc")]]
    assert (server.takers[1].data, server.takers[1].said) == (b"abc", ["end"])
    server.written = b""
    server.connection.send(server.streams[1], literal("a", "b"), b"answer", literal("c", "d"))
    assert server.frames() == [
        (_HEADERS, _WHOLE, 1, literal("a", "b")),
        (_DATA, 0, 1, b"answer"),
        (_HEADERS, _WHOLE | _END, 1, literal("c", "d")),
    ]
    assert not server.connection.streams
    server.connection.send(server.streams[1], b"", b"more", None)
    assert len(server.frames()) == 3


def test_an_early_answer_stops_the_request(server: _Server) -> None:
    """RST_STREAM without an error behind it; what is still under way is passed over."""
    server.hear(_begin())
    server.written = b""
    server.connection.send(server.streams[1], b"", trailers=literal("c", "d"))
    assert server.frames() == [(_HEADERS, _WHOLE | _END, 1, literal("c", "d")), (_RST, 0, 1, bytes(4))]
    server.hear(_frame(_DATA, 0, 1, bytes(500)) + _wider(1, 5) + _frame(_DATA, _END, 1, b"x") + _begin(1, end=True))
    server.hear(_frame(_RST, 0, 1, bytes(4)))
    assert (server.takers[1].data, server.takers[1].said, len(server.heads)) == (b"", [], 1)


def test_padding_and_priorities_are_nothing(server: _Server) -> None:
    """In headers and data; the padding's part of the window is given back."""
    head = _frame(_HEADERS, _WHOLE | _PADDED | _PRIORITIZED, 1, bytes((3,)) + bytes(5) + _BLOCK + bytes(3))
    server.written = b""
    server.hear(head + _frame(_PRIORITY, 0, 1, bytes(5)) + _frame(_DATA, _PADDED | _END, 1, b"\x02abc\0\0"))
    assert (server.takers[1].data, server.takers[1].said) == (b"abc", ["end"])
    assert server.frames() == [(_WIDER, 0, 1, (3).to_bytes(4))]
    server.hear(_begin(3) + _frame(_DATA, _PADDED | _END, 3, b"\x04" + bytes(4)))
    assert (server.takers[3].data, server.takers[3].said) == (b"", ["end"])


def test_headers_in_several_frames(server: _Server) -> None:
    """HEADERS and CONTINUATIONs are one block."""
    server.hear(_frame(_HEADERS, _END, 1, _BLOCK[:3]) + _frame(_CONTINUATION, 0, 1, _BLOCK[3:9]))
    assert not server.heads
    server.hear(_frame(_CONTINUATION, _WHOLE, 1, _BLOCK[9:]))
    assert server.heads[0][1] == (b":path", b"/a.B/C")
    assert server.takers[1].said == ["end"]


def test_trailers_of_a_request_are_its_end(server: _Server) -> None:
    """Clients may send headers behind the data."""
    server.hear(_begin() + _frame(_DATA, 0, 1, b"a") + _begin(1, end=True))
    assert (server.takers[1].data, server.takers[1].said) == (b"a", ["end"])


def test_pings_and_settings_are_answered(server: _Server) -> None:
    """With what they say, and with nothing."""
    server.written = b""
    server.hear(_frame(_PING, 0, 0, b"12345678") + _frame(_PING, _ACK, 0, bytes(8)) + _setting(99, 1))
    server.hear(_frame(_SETTINGS, _ACK) + _frame(_GOAWAY, 0, 0, bytes(8)) + _frame(77, 1, 9, b"what is that?"))
    assert server.frames() == [(_PING, _ACK, 0, b"12345678"), (_SETTINGS, _ACK, 0, b"")]


_FAULTS = {
    "data that was never begun": (_frame(_DATA, 0, 1, b"a"), http2.PROTOCOL_ERROR),
    "data of no stream": (_frame(_DATA, 0, 0, b"a"), http2.PROTOCOL_ERROR),
    "data behind the end": (_begin(end=True) + _frame(_DATA, 0, 1, b"a"), http2.STREAM_CLOSED),
    "an end behind the end": (_begin(end=True) + _begin(end=True), http2.PROTOCOL_ERROR),
    "trailers that are no end": (_begin() + _begin(), http2.PROTOCOL_ERROR),
    "too much data": (_begin() + _frame(_DATA, 0, 1, bytes(_WINDOW + 1)), http2.FLOW_CONTROL_ERROR),
    "too much padding": (_begin() + _frame(_DATA, _PADDED, 1, b"\x05abcd"), http2.PROTOCOL_ERROR),
    "padding without a length": (_begin() + _frame(_DATA, _PADDED, 1) + b"\x01", http2.PROTOCOL_ERROR),
    "too much padding of headers": (_frame(_HEADERS, _WHOLE | _PADDED, 1, b"\x05abcd"), http2.PROTOCOL_ERROR),
    "headers without the padding's length": (_frame(_HEADERS, _WHOLE | _PADDED, 1), http2.FRAME_SIZE_ERROR),
    "an even stream": (_begin(2), http2.PROTOCOL_ERROR),
    "headers of no stream": (_begin(0), http2.PROTOCOL_ERROR),
    "a block in pieces of two": (_frame(_HEADERS, 0, 1, _BLOCK) + _begin(3), http2.PROTOCOL_ERROR),
    "data within a block": (_frame(_HEADERS, 0, 1, _BLOCK) + _frame(_DATA, 0, 1, b""), http2.PROTOCOL_ERROR),
    "a ping within a block": (_frame(_HEADERS, 0, 1, _BLOCK) + _frame(_PING, 0, 0, bytes(8)), http2.PROTOCOL_ERROR),
    "the rest of no block": (_frame(_CONTINUATION, _WHOLE, 1, _BLOCK), http2.PROTOCOL_ERROR),
    "the rest of another's": (_frame(_HEADERS, 0, 1) + _frame(_CONTINUATION, 4, 3, _BLOCK), http2.PROTOCOL_ERROR),
    "headers without end": (
        _frame(_HEADERS, 0, 1) + _frame(_CONTINUATION, 0, 1, bytes(9999)) * 5,
        http2.ENHANCE_YOUR_CALM,
    ),
    "a bomb of headers": (
        _frame(_HEADERS, _WHOLE, 1, b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 20),
        http2.ENHANCE_YOUR_CALM,
    ),
    "no header block": (_frame(_HEADERS, _WHOLE, 1, b"\xff\xff\xff\xff\xff"), http2.COMPRESSION_ERROR),
    "a table of nothing": (_frame(_HEADERS, _WHOLE, 1, b"\xbf"), http2.COMPRESSION_ERROR),
    "a table that is too large": (_frame(_HEADERS, _WHOLE, 1, b"\x3f\xff\xff\x03"), http2.COMPRESSION_ERROR),
    "a long frame": (_frame(_PING, 0, 0, bytes(49153)), http2.FRAME_SIZE_ERROR),
    "a short ping": (_frame(_PING, 0, 0, bytes(7)), http2.FRAME_SIZE_ERROR),
    "a stream's ping": (_frame(_PING, 0, 1, bytes(8)), http2.PROTOCOL_ERROR),
    "a short priority": (_frame(_PRIORITY, 0, 1, bytes(4)), http2.FRAME_SIZE_ERROR),
    "a promise": (_frame(_PUSH, 0, 1, bytes(4)), http2.PROTOCOL_ERROR),
    "a short reset": (_begin() + _frame(_RST, 0, 1, bytes(3)), http2.FRAME_SIZE_ERROR),
    "a reset of nothing": (_frame(_RST, 0, 1, bytes(4)), http2.PROTOCOL_ERROR),
    "a stream's settings": (_frame(_SETTINGS, 0, 1), http2.PROTOCOL_ERROR),
    "half a setting": (_frame(_SETTINGS, 0, 0, bytes(5)), http2.FRAME_SIZE_ERROR),
    "an answer with settings": (_frame(_SETTINGS, _ACK, 0, bytes(6)), http2.FRAME_SIZE_ERROR),
    "windows of 2 GiB": (_setting(4, 2**31), http2.FLOW_CONTROL_ERROR),
    "small frames": (_setting(5, 16383), http2.PROTOCOL_ERROR),
    "large frames": (_setting(5, 2**24), http2.PROTOCOL_ERROR),
    "a stream's window by a setting": (
        _begin() + _wider(1, _MOST - 65535) + _setting(4, 65536),
        http2.FLOW_CONTROL_ERROR,
    ),
    "too many settings": (_frame(_SETTINGS) * 101, http2.ENHANCE_YOUR_CALM),
    "a window that stays": (_wider(0, 0), http2.PROTOCOL_ERROR),
    "a short window": (_frame(_WIDER, 0, 0, bytes(3)), http2.FRAME_SIZE_ERROR),
    "a window too large": (_wider(0, _MOST), http2.FLOW_CONTROL_ERROR),
    "a stream's too large": (_begin() + _wider(1, _MOST), http2.FLOW_CONTROL_ERROR),
    "a window of nothing": (_wider(1, 5), http2.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("what", _FAULTS)
def test_faults_have_their_codes(server: _Server, what: str) -> None:
    """RFC 9113's; the client is told by GOAWAY."""
    said, code = _FAULTS[what]
    with pytest.raises(Fault) as fault:
        server.hear(said)
    assert fault.value.code == code
    server.written = b""
    server.connection.fail(fault.value)
    ((kind, _, _, body),) = server.frames()
    assert (kind, int.from_bytes(body[4:8])) == (_GOAWAY, code)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"P", PREFACE[:23] + b"x", b"\0"])
def test_who_does_not_speak_http2_is_found_out_at_once(said: bytes) -> None:
    """By the first byte that is wrong."""
    server = _Server()
    if PREFACE.startswith(said):
        assert server.connection.receive(memoryview(said)) == 0
    else:
        with pytest.raises(Fault):
            server.hear(said)


def test_a_thousand_calls_at_a_time(server: _Server) -> None:
    """One more is refused as if it had never come, and has its turn when one has ended."""
    numbers = [2 * index + 1 for index in range(1026)]
    server.written = b""
    server.hear(b"".join(_begin(number) for number in numbers[:1025]))
    assert server.frames() == [(_RST, 0, numbers[1024], http2.REFUSED_STREAM.to_bytes(4))]
    server.hear(_frame(_RST, 0, 1, bytes(4)) + _begin(numbers[1025]))
    assert server.takers[1].said == ["lose"]
    assert list(server.streams) == [*numbers[:1024], numbers[1025]]


def test_the_end_is_announced_and_then_final(server: _Server) -> None:
    """What was begun before the client could know is answered, what comes behind its echo is refused."""
    server.hear(_begin(1))
    server.written = b""
    server.connection.announce_end()
    (away, ping) = server.frames()
    assert (away[0], away[3]) == (_GOAWAY, struct.pack("!II", _MOST, 0))
    server.hear(_begin(3))
    server.written = b""
    server.hear(_frame(_PING, _ACK, 0, ping[3]) + _frame(_PING, _ACK, 0, ping[3]) + _begin(5))
    assert server.frames() == [
        (_GOAWAY, 0, 0, struct.pack("!II", 3, 0)),
        (_RST, 0, 5, http2.REFUSED_STREAM.to_bytes(4)),
    ]
    for number in (1, 3):
        assert not server.connection.over
        server.connection.send(server.streams[number], b"", trailers=literal("c", "d"))
    assert server.connection.over


# -- whatever the pieces


def _conversation() -> bytes:
    """Much of the above in one."""
    encoder = Encoder()
    heads = [encoder.encode([(":path", f"/a.B/{name}"), ("x", "y" * 50), ("te", "trailers")]) for name in "CCDC"]
    return b"".join(
        (
            PREFACE + _frame(_SETTINGS) + _wider(0, 100),
            _frame(_HEADERS, _WHOLE, 1, heads[0]),
            _frame(_DATA, _PADDED, 1, b"\x03first\0\0\0"),
            _frame(_HEADERS, 0, 3, heads[1][:2]) + _frame(_CONTINUATION, _WHOLE, 3, heads[1][2:]),
            _frame(_DATA, _END, 3, b"second") + _frame(_DATA, 0, 1, bytes(range(256)) * 3) + _frame(_DATA, _END, 1),
            _frame(_HEADERS, _WHOLE | _END, 5, heads[2]) + _frame(_PING, 0, 0, b"12345678"),
            _frame(_HEADERS, _WHOLE, 7, heads[3]) + _frame(_DATA, 0, 7, b"third") + _frame(_RST, 0, 7, bytes(4)),
        )
    )


def _outcome(server: _Server) -> tuple[object, ...]:
    takers = {number: (taker.data, taker.said) for number, taker in server.takers.items()}
    return server.heads, takers, server.written


@pytest.mark.parametrize("room", [0, 7, 1 << 20])
@given(cuts=st.lists(st.integers(0, len(_conversation())), max_size=30))
def test_pieces_make_no_difference(room: int, cuts: list[int]) -> None:
    """The same requests and answers, wherever what arrives is cut; also byte by byte."""
    said = _conversation()
    expected = _outcome(_Server().hear(said))
    for places in (sorted(cuts), range(len(said))):
        server = _Server(room)
        for start, end in zip([0, *places], [*places, len(said)], strict=True):
            server.hear(said[start:end])
        assert _outcome(server) == expected


def test_large_data_is_written_where_it_belongs() -> None:
    """Without being given, and as far as its frame goes; the next frame is read as ever."""
    server = _Server(1 << 20, window=1 << 20).hear(PREFACE + _begin() + _frame(_DATA, _END, 1, bytes(100_000))[:50])
    room = server.connection.room()
    assert room is not None
    assert len(room) == 100_000 - 41
    server.hear(bytes(100_000 - 41) + _begin(3, end=True))
    assert (len(server.takers[1].data), server.takers[1].said) == (100_000, ["end"])
    assert server.takers[3].said == ["end"]


_Frames = st.lists(
    st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 6), st.binary(max_size=40)), max_size=12
)


@settings(max_examples=500)
@given(frames=_Frames, garbage=st.binary(max_size=60))
def test_nothing_but_faults_comes_of_garbage(frames: list[tuple[int, int, int, bytes]], garbage: bytes) -> None:
    """Any frames, and bytes that are none: a Fault at most."""
    server = _Server().hear(PREFACE)
    try:
        for kind, flags, number, body in frames:
            server.hear(_frame(kind, flags, number, body))
        server.hear(garbage)
    except Fault as fault:
        server.connection.fail(fault)
    server.connection.lose()
    server.frames()


_names = st.sampled_from(["a", "b", "x-request-id", "grpc-timeout", ":path", "te"])
_values = st.sampled_from(["", "1", "29999m", "/a.B/C", "y" * 300, "trailers"])
_lists = st.lists(st.tuples(_names, _values), min_size=1, max_size=6)


@settings(max_examples=200)
@given(requests=st.lists(st.tuples(_lists, st.sampled_from([None, 0, 100, 4096])), max_size=20))
def test_headers_are_read_as_they_were_written(requests: list[tuple[list[tuple[str, str]], int | None]]) -> None:
    """By a client whose table grows, shrinks and forgets, with blocks that are the same and mean something else."""
    encoder, server = Encoder(), _Server().hear(PREFACE)
    for index, (headers, table) in enumerate(requests):
        if table is not None:
            encoder.header_table_size = table
        server.hear(_frame(_HEADERS, _WHOLE | _END, 2 * index + 1, encoder.encode(headers)))
        assert server.heads[-1] == [(name.encode(), value.encode()) for name, value in headers]


# -- flow control


def test_who_allows_no_table_is_told_that_there_is_none(server: _Server) -> None:
    """Once, at the start of the next block; a strict client can read both."""
    decoder = Decoder()
    decoder.max_allowed_table_size = 0
    server.hear(_setting(1, 0) + _begin(1) + _begin(3))
    server.written = b""
    for number in (1, 3):
        server.connection.send(server.streams[number], literal("a", "b" * 200), b"", literal("c", "d"))
    blocks = [body for kind, _, _, body in server.frames() if kind == _HEADERS]
    assert [decoder.decode(block) for block in blocks] == [[("a", "b" * 200)], [("c", "d")]] * 2
    assert [block[0] for block in blocks] == [0x20, 0, 0, 0]


@settings(max_examples=200)
@given(
    first=st.integers(0, 300),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("stream"), st.integers(1, 300)),
            st.tuples(st.just("connection"), st.integers(1, 300)),
            st.tuples(st.just("setting"), st.integers(0, 500)),
        ),
        max_size=20,
    ),
)
def test_no_more_is_sent_than_is_allowed(first: int, sizes: list[int], steps: list[tuple[str, int]]) -> None:
    """Whatever the windows do; in the end all of it has come, in order, and the trailers behind it."""
    server = _Server().hear(PREFACE + _setting(4, first) + _begin(end=True))
    answers = [bytes([index]) * size for index, size in enumerate(sizes)]
    server.written = b""
    for index, answer in enumerate(answers):
        last = index == len(answers) - 1
        server.connection.send(server.streams[1], b"", answer, literal("c", "d") if last else None)
    allowed, initial, whole, expected = first, first, sum(sizes), 0
    for what, amount in [*steps, ("stream", whole + 1000), ("connection", whole)]:
        sent = sum(len(body) for kind, _, _, body in server.frames() if kind == _DATA)
        expected = max(expected, min(whole, allowed))
        assert sent == expected
        if sent == whole:
            break
        if what == "setting":
            allowed, initial = allowed + amount - initial, amount
            server.hear(_setting(4, amount))
        else:
            allowed += amount if what == "stream" else 0
            server.hear(_wider(1 if what == "stream" else 0, amount))
    frames = [frame for frame in server.frames() if frame[0] in {_DATA, _HEADERS}]
    assert b"".join(body for kind, _, _, body in frames if kind == _DATA) == b"".join(answers)
    assert frames[-1] == (_HEADERS, _WHOLE | _END, 1, literal("c", "d"))


def test_the_connection_has_a_window_too(server: _Server) -> None:
    """65535 bytes at first, shared by all; frames are no longer than the client takes."""
    server.hear(_setting(4, 1 << 20) + _begin(1, end=True) + _begin(3, end=True))
    server.written = b""
    for number in (1, 3):
        server.connection.send(server.streams[number], b"", bytes(40_000), None)
    sizes = [(number, len(body)) for _, _, number, body in server.frames()]
    assert sizes == [(1, 16384), (1, 16384), (1, 7232), (3, 16384), (3, 9151)]
    server.written = b""
    server.hear(_wider(0, 1 << 20))
    assert [(number, len(body)) for _, _, number, body in server.frames()] == [(3, 40_000 - 16384 - 9151)]
    assert [server.takers[number].drains for number in (1, 3)] == [1, 1]


@pytest.mark.parametrize("by_client", [True, False])
def test_what_waits_goes_with_its_stream(server: _Server, by_client: bool) -> None:
    """Nothing is sent for a request that was given up."""
    server.hear(_begin(1, end=True))
    server.connection.send(server.streams[1], b"", bytes(100_000), literal("c", "d"))
    if by_client:
        server.hear(_frame(_RST, 0, 1, bytes(4)))
    else:
        server.connection.reset(server.streams[1], http2.CANCEL)
    server.written = b""
    server.hear(_wider(0, 1 << 20))
    assert server.frames() == []
