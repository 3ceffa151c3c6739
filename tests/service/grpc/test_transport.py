"""service/grpc/transport.py and call.py: a server of gRPC as grpc's own clients meet it, and hostile ones."""

import asyncio
import gc
import json
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from service.grpc import call as call_module
from service.grpc import transport
from service.grpc.call import Aborted, Call, Method
from service.grpc.http2 import PREFACE, literal
from service.grpc.transport import Server
from service.ports import bound
from tests.service.grpc.test_http2 import _BLOCK, _begin, _frame

_LIMIT_S = 0.4
_MOST_BYTES = 8 << 20
_ROOM_BYTES = 64 << 20
_PATIENCE_S = 20.0
_DATA, _HEADERS, _RST, _PING, _GOAWAY = 0, 1, 3, 6, 7
_END, _WHOLE = 1, 4


class _Handlers:
    """Methods, and what became of their calls."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()
        self.begun = 0

    async def echo(self, request: bytearray, call: Call) -> bytes:
        call.trailing = (("x-kept", call.metadata.get("x-sent", "")),)
        return bytes(request)

    async def wait(self, request: bytearray, _: Call) -> bytes:
        self.begun += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return bytes(request)

    async def fail(self, _: bytearray, __: Call) -> bytes:
        raise ZeroDivisionError

    async def refuse(self, _: bytearray, call: Call) -> bytes:
        await call.abort(grpc.StatusCode.NOT_FOUND, "grün, 100 %\n", (("x-code", "7"),))

    async def recover(self, _: bytearray, call: Call) -> bytes:
        self.begun += 1
        if self.begun < 3:
            await call.abort(grpc.StatusCode.UNAVAILABLE, "try again")
        return b"there"

    async def garble(self, request: bytearray, call: Call) -> bytes:
        if request:
            raise OSError("a name \udcff")
        call.trailing = (("x-name", "grün"),)
        return b""

    async def ignore(self, _: None, __: Call) -> None:
        await self.go_on.wait()

    async def echo_all(self, _: None, call: Call) -> None:
        async for message in call.requests():
            await call.write(message)

    async def many(self, request: bytearray, call: Call) -> None:
        for _ in range(int(request)):
            self.begun += 1
            await call.write(bytes(100_000))

    def methods(self) -> dict[str, Method]:
        """By their names."""
        return {
            "/a.B/C": Method(self.echo),
            "/a.B/Wait": Method(self.wait),
            "/a.B/Fail": Method(self.fail),
            "/a.B/Refuse": Method(self.refuse),
            "/a.B/Recover": Method(self.recover),
            "/a.B/Garble": Method(self.garble),
            "/a.B/Ignore": Method(self.ignore, reads=True, lasts=True),
            "/a.B/EchoAll": Method(self.echo_all, reads=True, lasts=True),
            "/a.B/Many": Method(self.many, lasts=True),
        }


@asynccontextmanager
async def _serving(
    port: int = 0, limit_s: float = _LIMIT_S, room_bytes: int = _ROOM_BYTES
) -> AsyncIterator[tuple[Server, _Handlers, int]]:
    handlers = _Handlers()
    server = Server(handlers.methods(), _MOST_BYTES, room_bytes, limit_s)
    listener = bound("127.0.0.1", port)
    await server.start(listener)
    try:
        yield server, handlers, listener.getsockname()[1]
    finally:
        await server.stop(0)


@asynccontextmanager
async def _channel(port: int) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        yield channel


def _run(test: Callable[[Server, _Handlers, int], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with _serving(**options) as (server, handlers, port):
            await test(server, handlers, port)

    asyncio.run(asyncio.wait_for(run(), 60))


async def _status(call: Any) -> tuple[str, str]:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name, str(error.details())
    return "OK", ""


class _Raw:
    """A client that says bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def at(cls, port: int) -> "_Raw":
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        client.writer.write(PREFACE + _frame(4))
        return client

    async def frame(self) -> tuple[int, int, int, bytes]:
        """The next one."""
        head = await self._reader.readexactly(9)
        kind, flags, number = struct.unpack_from("!BBI", head, 3)
        return kind, flags, number, await self._reader.readexactly(int.from_bytes(head[:3]))

    async def until(self, kind: int) -> tuple[int, int, int, bytes]:
        """The next one of a kind."""
        while (frame := await self.frame())[0] != kind:
            pass
        return frame

    async def left(self) -> bytes:
        """What comes until the server hangs up."""
        return await self._reader.read()


def _block(path: str, content_type: str = "application/grpc") -> bytes:
    return b"\x83\x86" + literal(":path", path) + literal("content-type", content_type)


def _message(data: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(data).to_bytes(4) + data


def test_messages_of_every_size_and_metadata() -> None:
    """Nothing, one byte, photos, what is larger than every window, the largest; several at once on one connection."""

    async def test(_: Server, __: _Handlers, port: int) -> None:
        async with _channel(port) as channel:
            echo = channel.unary_unary("/a.B/C")
            sizes = [0, 1, 16_384, 65_531, 150_000, (4 << 20) - 5, (4 << 20) + 1, _MOST_BYTES]
            calls = [echo(bytes([size % 251]) * size, metadata=(("x-sent", str(size)),)) for size in sizes]
            for size, call in zip(sizes, calls, strict=True):
                assert await call == bytes([size % 251]) * size
                assert dict(await call.trailing_metadata())["x-kept"] == str(size)

    _run(test)


def test_streams_both_ways() -> None:
    """More than any window in all, in order; and an answer of many messages to a client that takes its time."""

    async def test(_: Server, handlers: _Handlers, port: int) -> None:
        async with _channel(port) as channel:
            sent = [bytes([index]) * 200_000 for index in range(60)]
            stream = channel.stream_stream("/a.B/EchoAll")(iter(sent))
            assert [message async for message in stream] == sent
            many = channel.unary_stream("/a.B/Many")(b"300")
            assert await many.read() == bytes(100_000)
            await asyncio.sleep(0.3)
            assert 0 < handlers.begun < 200  # the others wait for the client
            for _ in range(299):
                assert await many.read() == bytes(100_000)
            assert await many.read() is grpc.aio.EOF

    _run(test)


def test_errors_say_what_they_are(caplog: pytest.LogCaptureFixture) -> None:
    """Of methods that refuse, fail, or are not there; of messages that are too large or too many."""

    async def test(_: Server, __: _Handlers, port: int) -> None:
        async with _channel(port) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary("/a.B/Refuse")(b"")
            assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.NOT_FOUND, "grün, 100 %\n")
            assert dict(refused.value.trailing_metadata())["x-code"] == "7"
            code, details = await _status(channel.unary_unary("/a.B/Fail")(b""))
            assert (code, "ZeroDivisionError" in details) == ("UNKNOWN", True)
            assert await _status(channel.unary_unary("/a.B/D")(b"")) == ("UNIMPLEMENTED", "Method not found!")
            code, details = await _status(channel.unary_unary("/a.B/C")(bytes(_MOST_BYTES + 1)))
            assert (code, details) == ("RESOURCE_EXHAUSTED", "Received message larger than max (8388609 vs. 8388608)")
            two, none = iter([b"a", b"b"]), iter([])
            assert await _status(channel.stream_unary("/a.B/C")(two)) == (
                "UNIMPLEMENTED",
                "expected one message, got more",
            )
            assert await _status(channel.stream_unary("/a.B/C")(none)) == (
                "UNIMPLEMENTED",
                "expected a message, got none",
            )
            assert await channel.unary_unary("/a.B/C")(b"goes on") == b"goes on"

    with caplog.at_level(logging.ERROR):
        _run(test)
    assert "ZeroDivisionError" in caplog.text


def test_calls_leave_nothing_behind() -> None:
    """Their memory is free when they end, and not when garbage is looked for."""

    async def test(_: Server, __: _Handlers, port: int) -> None:
        raw = await _Raw.at(port)
        for number in range(1, 21, 2):
            if number == 3:
                gc.collect()
                gc.disable()
            path = "/a.B/C" if number % 4 == 1 else "/a.B/Refuse"
            raw.writer.write(
                _frame(_HEADERS, _WHOLE, number, _block(path)) + _frame(_DATA, _END, number, _message(b"a"))
            )
            while not (await raw.until(_HEADERS))[1] & _END:
                pass
        try:
            calls = [one for one in gc.get_objects() if isinstance(one, Call)]
        finally:
            gc.enable()
        assert not calls
        raw.writer.close()

    _run(test)


def test_a_deadline_ends_the_work() -> None:
    """The client's, also where it is longer than ours; and one that a client does not keep itself."""

    async def test(_: Server, handlers: _Handlers, port: int) -> None:
        async with _channel(port) as channel:
            for timeout_s in (0.1, 60):
                handlers.cancelled.clear()
                status, _ = await _status(channel.unary_unary("/a.B/Wait")(b"", timeout=timeout_s))
                assert status == "DEADLINE_EXCEEDED"
                await asyncio.wait_for(handlers.cancelled.wait(), _PATIENCE_S)
        raw = await _Raw.at(port)
        raw.writer.write(_begin(1) + _frame(_DATA, 0, 1, _message(bytes(99))[:50]))  # and never more
        _, flags, number, body = await raw.until(_HEADERS)
        assert (flags, number, b"grpc-status\x014" in body) == (_END | _WHOLE, 1, True)
        assert (await raw.until(_RST))[3] == bytes(4)
        raw.writer.close()

    _run(test)


def test_work_ends_when_nobody_waits_for_it() -> None:
    """A call that is cancelled, also in the breath in which it began, and a connection that is cut."""

    async def test(server: Server, handlers: _Handlers, port: int) -> None:
        async with _channel(port) as channel:
            call = channel.unary_unary("/a.B/Wait")(b"")
            while not handlers.begun:
                await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.wait_for(handlers.cancelled.wait(), _PATIENCE_S)
            assert await channel.unary_unary("/a.B/C")(b"a") == b"a"
        handlers.cancelled.clear()
        before = set(server.peers)
        raw = await _Raw.at(port)
        calls = [
            _frame(_HEADERS, _WHOLE, number, _block("/a.B/Wait")) + _frame(_DATA, _END, number, _message(b""))
            for number in (1, 3)
        ]
        raw.writer.write(calls[0] + _frame(_RST, 0, 1, bytes(4)))
        await asyncio.wait_for(handlers.cancelled.wait(), _PATIENCE_S)
        handlers.cancelled.clear()
        raw.writer.write(calls[1])
        while handlers.begun < 3:
            await asyncio.sleep(0.01)
        raw.writer.transport.abort()
        await asyncio.wait_for(handlers.cancelled.wait(), _PATIENCE_S)
        while server.peers - before:
            await asyncio.sleep(0.01)

    _run(test)


def test_clients_try_again_by_themselves() -> None:
    """By their retry policy, which needs errors without headers before them."""
    policy = {"maxAttempts": 4, "initialBackoff": "0.01s", "maxBackoff": "0.02s", "backoffMultiplier": 1}
    method = {"name": [{"service": "a.B"}], "retryPolicy": policy | {"retryableStatusCodes": ["UNAVAILABLE"]}}

    async def test(_: Server, handlers: _Handlers, port: int) -> None:
        options = [("grpc.service_config", json.dumps({"methodConfig": [method]}))]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            assert await channel.unary_unary("/a.B/Recover")(b"") == b"there"
        assert handlers.begun == 3

    _run(test)


def test_too_much_metadata_fails_its_call_alone() -> None:
    """Others of the same connection go on."""

    async def test(_: Server, handlers: _Handlers, port: int) -> None:
        async with _channel(port) as channel:
            wait = channel.unary_unary("/a.B/Wait")(b"b")
            while not handlers.begun:
                await asyncio.sleep(0.01)
            large = channel.unary_unary("/a.B/C")(b"a", metadata=(("x-large", "a" * 40_000),))
            status, details = await _status(large)
            assert (status, details.startswith("expected at most 16384 bytes of headers")) == (
                "RESOURCE_EXHAUSTED",
                True,
            )
            handlers.go_on.set()
            assert await wait == b"b"

    _run(test)


def test_messages_that_nobody_reads_are_bounded() -> None:
    """Five bytes each, they would fit a window a million times."""

    async def test(_: Server, __: _Handlers, port: int) -> None:
        raw = await _Raw.at(port)
        raw.writer.write(_frame(_HEADERS, _WHOLE, 1, _block("/a.B/Ignore")))
        for _ in range(6):
            raw.writer.write(_frame(_DATA, 0, 1, bytes(16_000)))
        assert b"grpc-status\x018" in (await raw.until(_HEADERS))[3]
        raw.writer.close()

    _run(test)


def test_messages_of_all_clients_are_bounded() -> None:
    """What is left of the room is for who comes first; it is there again when the others have gone."""

    async def test(_: Server, __: _Handlers, port: int) -> None:
        first, second = await _Raw.at(port), await _Raw.at(port)
        half = _begin(1) + _frame(_DATA, 0, 1, _message(bytes(700_000))[:600_000])
        first.writer.write(half)
        await first.writer.drain()
        await asyncio.sleep(0.1)
        second.writer.write(half)
        _, _, _, body = await second.until(_HEADERS)
        assert b"grpc-status\x018" in body
        assert b"OVERLOADED" in body
        first.writer.close()
        await asyncio.sleep(0.1)
        second.writer.write(_begin(3) + _frame(_DATA, _END, 3, _message(bytes(900_000))))
        assert (await second.until(_DATA))[2] == 3
        second.writer.close()

    _run(test, room_bytes=1_000_000)


def test_an_answer_that_is_not_taken_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may leave no room for it; a call that is answered is not over until then."""
    monkeypatch.setattr(call_module, "_UNREAD_S", 0.2)

    async def test(_: Server, __: _Handlers, port: int) -> None:
        raw = await _Raw.at(port)
        raw.writer.write(_frame(4, 0, 0, struct.pack("!HI", 4, 0)))
        raw.writer.write(_begin(1) + _frame(_DATA, _END, 1, _message(b"a")))
        assert (await raw.until(_RST))[2:] == (1, (8).to_bytes(4))
        raw.writer.close()

    _run(test)


def test_who_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; who has greeted may be silent."""
    monkeypatch.setattr(transport, "_SILENT_S", 0.1)

    async def test(_: Server, __: _Handlers, port: int) -> None:
        greeted = await _Raw.at(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.wait_for(reader.read(), _PATIENCE_S)
        writer.close()
        greeted.writer.write(_begin(1) + _frame(_DATA, _END, 1, _message(b"a")))
        assert (await greeted.until(_DATA))[3] == _message(b"a")
        greeted.writer.close()

    _run(test)


def test_errors_that_cannot_be_written_are_errors() -> None:
    """A name that is no text, metadata that are not ASCII: the call ends all the same."""

    async def test(_: Server, __: _Handlers, port: int) -> None:
        async with _channel(port) as channel:
            assert await _status(channel.unary_unary("/a.B/Garble")(b"a")) == (
                "UNKNOWN",
                "Unexpected <class 'OSError'>: a name ?",
            )
            assert (await _status(channel.unary_unary("/a.B/Garble")(b"")))[0] == "INTERNAL"

    _run(test)


def test_the_limit_of_an_answer_begins_with_the_whole_request() -> None:
    """A slow upload has its own."""

    async def test(_: Server, handlers: _Handlers, port: int) -> None:
        raw = await _Raw.at(port)
        message = _message(b"abc")
        raw.writer.write(_frame(_HEADERS, _WHOLE, 1, _block("/a.B/Wait")) + _frame(_DATA, 0, 1, message[:6]))
        await asyncio.sleep(1.2)
        raw.writer.write(_frame(_DATA, _END, 1, message[6:]))
        await asyncio.sleep(1.2)
        handlers.go_on.set()
        assert (await raw.until(_DATA))[3] == message
        raw.writer.close()

    _run(test, limit_s=1.0)


def test_what_is_no_call_runs_nothing() -> None:
    """Also where a method would have begun with the headers."""

    async def test(server: Server, _: _Handlers, port: int) -> None:
        raw = await _Raw.at(port)
        before = len(asyncio.all_tasks())
        for kind in ("text/html", "application/grpc-web", "application/grpcs"):
            for index in range(50):
                number = 2 * index + 1
                raw.writer.write(_frame(_HEADERS, _WHOLE, number, _block("/a.B/EchoAll", kind)))
                assert (await raw.until(_HEADERS))[3] == b"\x08\x03415"
            raw.writer.close()
            raw = await _Raw.at(port)
        assert len(asyncio.all_tasks()) == before
        (peer,) = [peer for peer in server.peers if peer.http2.streams] or [None]
        assert peer is None
        raw.writer.close()

    _run(test)


def test_what_is_refused_by_its_headers_is_never_read() -> None:
    """The answer comes before any data; what is sent nevertheless is thrown away, and the next call is answered."""

    async def test(server: Server, _: _Handlers, port: int) -> None:
        name, refusing = b"/a.B/C", [True]

        def refuse(call: Call) -> Aborted | None:
            assert call.left_s > 0
            return Aborted(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", ()) if refusing else None

        server.methods[name] = replace(server.methods[name], refuses=refuse)
        raw = await _Raw.at(port)
        raw.writer.write(_frame(_HEADERS, _WHOLE, 1, _block(name.decode())))
        _, flags, number, block = await raw.until(_HEADERS)
        assert (flags, number) == (_WHOLE | _END, 1)
        assert literal("grpc-status", "8") + literal("grpc-message", "busy") in block
        assert await raw.frame() == (_RST, 0, 1, bytes(4))
        raw.writer.write(_frame(_DATA, _END, 1, _message(bytes(10_000))))
        refusing.clear()
        raw.writer.write(_frame(_HEADERS, _WHOLE, 3, _block(name.decode())))
        raw.writer.write(_frame(_DATA, _END, 3, _message(b"well")))
        assert (await raw.until(_DATA))[2:] == (3, _message(b"well"))
        raw.writer.close()

    _run(test)


def test_a_slow_client_gets_all_of_its_answer_at_the_end() -> None:
    """It takes its time, and says things meanwhile that the server does not read any more."""

    async def test(server: Server, _: _Handlers, port: int) -> None:
        raw = await _Raw.at(port)
        wide = _frame(4, 0, 0, struct.pack("!HI", 4, 2**31 - 1)) + _frame(8, 0, 0, (2**31 - 65536).to_bytes(4))
        raw.writer.write(wide + _frame(_HEADERS, _WHOLE, 1, _block("/a.B/Many")))
        raw.writer.write(_frame(_DATA, _END, 1, _message(b"30")))
        await raw.until(_DATA)
        ending = asyncio.create_task(server.stop(_PATIENCE_S))
        got = 0
        while True:
            kind, flags, _, body = await raw.frame()
            got += len(body) if kind == _DATA else 0
            if kind == _DATA:
                await asyncio.sleep(0.005)
                raw.writer.write(_frame(8, 0, 0, (1).to_bytes(4)))
            elif kind == _PING:
                raw.writer.write(_frame(_PING, 1, 0, body))
            elif kind == _HEADERS and flags & _END:
                break
        assert got > 29 * 100_000
        raw.writer.close()
        await asyncio.wait_for(ending, _PATIENCE_S / 4)

    _run(test)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (_frame(_HEADERS, _WHOLE | _END, 1, b"\x82\x86\x84\x01\x01a"), b"\x08\x03415"),
        (_begin(1) + _frame(_DATA, _END, 1, b"\0\0"), b"grpc-status\x0213"),
        (_begin(1) + _frame(_DATA, _END, 1, _message(b"abc")[:7]), b"grpc-status\x0213"),
        (_begin(1) + _frame(_DATA, _END, 1, _message(b"abc", 1)), b"grpc-status\x0213"),
        (_frame(_HEADERS, _WHOLE, 1, _BLOCK + b"\0\x0cgrpc-timeout\x0212"), b"grpc-status\x0213"),
        (_frame(_HEADERS, _WHOLE, 1, _BLOCK + b"\0\x0dgrpc-encoding\x04gzip"), b"grpc-status\x0212"),
    ],
)
def test_what_is_no_call_is_said(said: bytes, status: bytes) -> None:
    """A page's request, half a message, one that says that it is compressed, a timeout that is none."""

    async def test(_: Server, __: _Handlers, port: int) -> None:
        raw = await _Raw.at(port)
        raw.writer.write(said)
        while status not in (frame := await raw.until(_HEADERS))[3]:
            pass
        assert frame[1] == _END | _WHOLE
        raw.writer.write(_begin(3) + _frame(_DATA, _END, 3, _message(b"again")))
        assert (await raw.until(_DATA))[3] == _message(b"again")
        raw.writer.close()

    _run(test)


def test_who_breaks_the_protocol_is_told_and_hung_up_on() -> None:
    """GOAWAY with a code, or nothing for who does not even speak it."""

    async def test(_: Server, __: _Handlers, port: int) -> None:
        raw = await _Raw.at(port)
        raw.writer.write(_frame(_DATA, 0, 1, b"a"))
        kind, _, _, body = await raw.until(_GOAWAY)
        assert (kind, body[4:8]) == (_GOAWAY, (1).to_bytes(4))
        assert await raw.left() == b""
        raw.writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert b"expected HTTP/2" in await reader.read()
        writer.close()

    _run(test)


def test_who_does_not_read_is_not_answered_more() -> None:
    """Pings without end: the server stops reading rather than to keep the answers."""

    async def test(server: Server, _: _Handlers, port: int) -> None:
        raw = await _Raw.at(port)
        (peer,) = server.peers
        raw.writer.transport.pause_reading()
        ping = _frame(_PING, 0, 0, bytes(8)) * 1000
        sent = 0
        for _ in range(4000):
            raw.writer.write(ping)
            if raw.writer.transport.get_write_buffer_size() > 1 << 20:
                break
            sent += len(ping)
            await asyncio.sleep(0)
        else:
            raise AssertionError("it has read everything")
        assert peer.http2.blocked
        raw.writer.transport.abort()

    _run(test)


def test_calls_under_way_are_answered_when_it_ends() -> None:
    """Those that wait, those that come meanwhile find the next server, and an idle client delays nothing."""

    async def run() -> None:
        serving = _serving(limit_s=_PATIENCE_S)
        async with serving as (first, handlers, port), _channel(port) as channel, _channel(port) as idle:
            assert await idle.unary_unary("/a.B/C")(b"a") == b"a"
            waits = [asyncio.ensure_future(channel.unary_unary("/a.B/Wait")(b"b")) for _ in range(50)]
            while handlers.begun < 50:
                await asyncio.sleep(0.01)
            async with _serving(port):
                ending = asyncio.create_task(first.stop(_PATIENCE_S))
                await asyncio.sleep(0.05)
                echo = channel.unary_unary("/a.B/C")
                assert await asyncio.gather(*[echo(b"c", wait_for_ready=True) for _ in range(50)]) == [b"c"] * 50
                handlers.go_on.set()
                assert await asyncio.gather(*waits) == [b"b"] * 50
                before = asyncio.get_running_loop().time()
                await ending
                assert asyncio.get_running_loop().time() - before < _PATIENCE_S / 4

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_stream_that_stays_open_ends_with_the_server() -> None:
    """What its client has said is answered."""

    async def test(server: Server, _: _Handlers, port: int) -> None:
        async with _channel(port) as channel:
            stream = channel.stream_stream("/a.B/EchoAll")()
            for _ in range(3):
                await stream.write(b"a")
            assert await stream.read() == b"a"
            ending = asyncio.create_task(server.stop(_PATIENCE_S))
            assert [await stream.read() for _ in range(3)] == [b"a", b"a", grpc.aio.EOF]
            assert await stream.code() == grpc.StatusCode.OK
            await asyncio.wait_for(ending, _PATIENCE_S / 4)

    _run(test)


def test_servers_change_under_load_without_a_call_lost() -> None:
    """Twenty in turn on one port, while clients call as fast as they can: no call fails."""

    async def run() -> None:
        failed: list[str] = []
        answered = 0
        over = asyncio.Event()

        async def call(port: int) -> None:
            nonlocal answered
            while not over.is_set():
                async with _channel(port) as channel:
                    for _ in range(20):
                        try:
                            await channel.unary_unary("/a.B/C")(b"a", wait_for_ready=True)
                            answered += 1
                        except grpc.aio.AioRpcError as error:
                            failed.append(f"{error.code()} {error.details()}")

        async with _serving() as (present, _, port):
            clients = [asyncio.create_task(call(port)) for _ in range(8)]
            for _ in range(20):
                following = Server(_Handlers().methods(), _MOST_BYTES, _ROOM_BYTES, _LIMIT_S)
                await following.start(bound("127.0.0.1", port))
                await present.stop(_PATIENCE_S)
                present = following  # noqa: PLW2901 - the one that serves
            over.set()
            await asyncio.gather(*clients)
            await present.stop(0)
        assert answered > 100
        assert failed == []

    asyncio.run(asyncio.wait_for(run(), 120))


def test_a_port_is_any_hosts() -> None:
    """IPv6, where there is some."""

    async def run() -> None:
        handlers = _Handlers()
        server = Server(handlers.methods(), _MOST_BYTES, _ROOM_BYTES, _LIMIT_S)
        try:
            listener = bound("::1", 0)
        except OSError:
            pytest.skip("this host has no IPv6")
        await server.start(listener)
        assert listener.family == socket.AF_INET6
        async with grpc.aio.insecure_channel(f"[::1]:{listener.getsockname()[1]}") as channel:
            assert await channel.unary_unary("/a.B/C")(b"a") == b"a"
        await server.stop(0)

    asyncio.run(asyncio.wait_for(run(), 60))
