"""A gRPC server on asyncio: sockets, and which method answers a call. HTTP/2 is in http2.py, a call in call.py."""

import asyncio
import socket
import time
from collections.abc import Mapping
from typing import Final, cast

from grpc import StatusCode

from service.grpc.call import Call, Head, Method, read_head
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
_LEAVE_S: Final = 0.25
"""For so long it may take to hang up by itself."""
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
        limit_s: for a call of one message each way, however long its client would wait.
    """

    def __init__(self, methods: Mapping[str, Method], most_bytes: int, limit_s: float) -> None:
        self.methods = {name.encode("ascii"): method for name, method in methods.items()}
        self.peers: set[_Peer] = set()
        self.most_bytes = most_bytes
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
                if peer.http2.over and took_s > _LEAVE_S:
                    peer.close()
            if took_s >= HANDSHAKE_S:
                self._server.close()
        self._watching.cancel()
        for peer in list(self.peers):
            peer.close()
        await asyncio.sleep(0)

    async def _watch(self) -> None:
        """Ends what is late: calls whose clients neither go on nor leave."""
        while True:
            await asyncio.sleep(_WATCH_S)
            now = time.monotonic()
            for peer in self.peers:
                for stream in peer.http2.streams:
                    if stream.receiver.due < now:
                        stream.receiver.expire()


class _Peer(asyncio.BufferedProtocol):
    """One client's connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._left = b""
        self._elsewhere = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
        self.http2 = Connection(self._transport.write, read_head, self._begin, _WINDOW_BYTES)
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
        data = self._server.buffer[: len(self._left) + nbytes]
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

    def close(self) -> None:
        """Hangs up, after what has been written."""
        self.http2.lose()
        self._transport.close()

    def _begin(self, connection: Connection[Head], stream: Stream, head: Head) -> Call:
        method = self._server.methods.get(head.path)
        if not head.content_type.startswith(b"application/grpc"):
            connection.send(stream, b"", trailers=_NOT_GRPC)
        call = Call(
            connection,
            stream,
            method or _NO_METHOD,
            head,
            most_bytes=self._server.most_bytes,
            window_bytes=_WINDOW_BYTES,
            limit_s=self._server.limit_s,
        )
        if method is None:
            call.end_with(StatusCode.UNIMPLEMENTED, "Method not found!")
        return call
