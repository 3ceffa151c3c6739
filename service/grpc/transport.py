"""A gRPC server on asyncio: sockets, and which method answers a call. HTTP/2 is in http2.py, a call in call.py."""

import asyncio
import fcntl
import socket
import struct
import termios
import time
from collections.abc import Mapping
from typing import Final, cast

from grpc import StatusCode

from service.grpc.call import Aborted, Call, Head, Method, Room, read_head
from service.grpc.http2 import Connection, Fault, Stream
from service.ports import HANDSHAKE_S, take_no_more

_BUFFER_BYTES: Final = 1 << 16
"""Read at once. A photo fits; what is larger is mostly read to where it belongs."""
_WINDOW_BYTES: Final = 1 << 22
_UNREAD_MS: Final = 30_000
"""For so long a client may leave its answers unread before it is hung up on."""
_WAITING_CONNECTIONS: Final = 2048
_HEARD_S: Final = 1.0
"""For so long a client may take to hear that this ends."""
_SILENT_S: Final = 10.0
"""For so long a connection may be open without a word."""
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 6))
"""After how many seconds of silence TCP asks whether the client is still there, how often, how many times."""
_STALLED_S: Final = 5.0
"""For so long it may take nothing of what it is still to get then, or not hang up when it has got it."""
_POLL_S: Final = 0.02
_WATCH_S: Final = 0.5
_NOT_GRPC: Final = b"\x08\x03415"
"""A header block: status 415."""


async def _nothing(_: object, __: Call) -> None:
    """Of calls that were answered when they began."""


_NO_METHOD: Final = Method(_nothing)


class Server:
    """Answers calls.

    Attributes:
        peers: those who are connected.
        ending: whether those who come now are sent away.
        buffer: what one of them has just sent.

    Args:
        methods: by "/package.Service/Method".
        most_bytes: of a message.
        room_bytes: for all messages together that are on their way, or neither answered nor read.
        limit_s: for a call of one message each way, however long its client would wait.
    """

    def __init__(self, methods: Mapping[str, Method], most_bytes: int, room_bytes: int, limit_s: float) -> None:
        self.methods = {name.encode("ascii"): method for name, method in methods.items()}
        self.peers: set[_Peer] = set()
        self.most_bytes = most_bytes
        self.room = Room(room_bytes)
        self.limit_s = limit_s
        self.ending = False
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))

    async def start(self, listener: socket.socket) -> None:
        """Takes connections."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Peer(self), sock=listener, backlog=_WAITING_CONNECTIONS)
        self._watching = loop.create_task(self._watch())

    async def stop(self, seconds: float) -> None:
        """Takes no more connections and calls, and lets those that there are end within so many seconds."""
        self.ending = True
        began = time.monotonic()
        for listener in self._server.sockets:
            take_no_more(listener)
        for peer in self.peers:
            peer.http2.announce_end()
        took_s = 0.0
        while took_s < HANDSHAKE_S or (self.peers and took_s < seconds):
            await asyncio.sleep(_POLL_S)
            took_s = time.monotonic() - began
            for peer in list(self.peers):
                for stream in peer.http2.streams:
                    stream.receiver.stop()
                if took_s > _HEARD_S:
                    peer.http2.refuse()
                if peer.http2.over:
                    peer.leave()
            if took_s >= HANDSHAKE_S:
                self._server.close()
        self._watching.cancel()
        for peer in list(self.peers):
            for stream in peer.http2.streams:
                stream.receiver.give_up()
            peer.close()
        await asyncio.sleep(0)

    async def _watch(self) -> None:
        """Ends what is late: calls whose clients neither go on nor leave, and connections of those who say nothing."""
        while True:
            await asyncio.sleep(_WATCH_S)
            now = time.monotonic()
            for peer in list(self.peers):
                if not peer.http2.greeted and peer.since < now - _SILENT_S:
                    peer.close()
                for stream in peer.http2.streams:
                    if stream.receiver.due < now:
                        stream.receiver.expire()


class _Peer(asyncio.BufferedProtocol):
    """One client's connection."""

    def __init__(self, server: Server) -> None:
        self.since = time.monotonic()
        self._server = server
        self._left = b""
        self._elsewhere = False
        self._unsent = -1
        self._stalled_since = 0.0
        self._said_all = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
        self.http2 = Connection(self._write, read_head, self._begin, _WINDOW_BYTES)
        self._server.peers.add(self)
        if self._server.ending:
            self.http2.announce_end()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        del error
        self._server.peers.discard(self)
        self.http2.lose()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called by asyncio, which then receives into it, at once."""
        del sizehint
        left = len(self._left)
        room = None if left else self.http2.room()
        self._elsewhere = room is not None
        if room is not None:
            return room
        self._server.buffer[:left] = self._left
        return self._server.buffer[left:]

    def buffer_updated(self, nbytes: int) -> None:
        """Called by asyncio: so much has come."""
        if self._elsewhere:
            self.http2.wrote(nbytes)
            return
        self._take(self._server.buffer[: len(self._left) + nbytes])

    def _take(self, data: memoryview) -> None:
        try:
            taken = self.http2.receive(data)
        except Fault as fault:
            self.http2.fail(fault)
            self.close()
        else:
            self._left = bytes(data[taken:])

    def pause_writing(self) -> None:
        """Called by asyncio: the client does not read. So nothing more is read that would have to be answered."""
        self.http2.blocked = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self.http2.blocked = False
        self._transport.resume_reading()
        for stream in self.http2.streams:
            stream.receiver.drained()
        self._take(memoryview(self._left))  # what it was too busy for; it may block again

    def leave(self) -> None:
        """Says that nothing more comes, when the client has got everything, and waits a while until it hangs up.

        Hanging up first could take away from it what it has not read, as it may still be saying something.
        """
        queued = struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))[0]
        unsent, now = queued + self._transport.get_write_buffer_size(), time.monotonic()
        if unsent != self._unsent:
            self._unsent, self._stalled_since = unsent, now
        elif now > self._stalled_since + _STALLED_S:
            self._transport.abort()
        if unsent == 0 and not self._said_all:
            self._said_all = True
            self._transport.write_eof()

    def _write(self, data: bytes) -> None:
        if not self._said_all and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Hangs up, after what has been written."""
        self.http2.lose()
        self._transport.close()

    def _begin(self, connection: Connection[Head], stream: Stream, head: Head) -> Call:
        method = self._server.methods.get(head.path)
        if not head.is_grpc:
            connection.send(stream, b"", trailers=_NOT_GRPC)
            method = None
        call = Call(
            connection,
            stream,
            method or _NO_METHOD,
            head,
            most_bytes=self._server.most_bytes,
            window_bytes=_WINDOW_BYTES,
            room=self._server.room,
            limit_s=self._server.limit_s,
        )
        if method is None:
            call.end_with(Aborted(StatusCode.UNIMPLEMENTED, "Method not found!", ()))
        return call
