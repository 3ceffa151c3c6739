"""A gRPC call over HTTP/2: its headers, messages, deadline and status."""

import asyncio
import logging
import math
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import quote

from grpc import StatusCode

from service.grpc.http2 import CANCEL, Connection, Header, Stream, literal

Metadata = Sequence[tuple[str, str]]

_HEAD: Final = b"\x88" + literal("content-type", "application/grpc")
"""Of an answer: status 200, which is in HPACK's static table, and what it is."""
_OK: Final = literal("grpc-status", "0")
_IDENTITY: Final = (("grpc-accept-encoding", "identity"),)
_PREFIX_BYTES: Final = 5
_FIRST_BYTES: Final = 1 << 16
"""Of a message that are made room for when it begins."""
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_OF_PROTOCOL: Final = (b":", b"grpc-", b"content-type")
_PRINTABLE: Final = "".join(chr(one) for one in range(0x20, 0x7F) if chr(one) != "%")
_MOST_DETAIL: Final = 1024
"""Characters of an error's text: clients refuse headers that are long."""
_PATIENCE_S: Final = 0.5
"""For so long after its deadline a call may find words of its own for it."""

_log = logging.getLogger("graft.grpc")


class Aborted(Exception):
    """A call has ended with a status that is not OK; see Call.abort."""


@dataclass(frozen=True, slots=True)
class Method:
    """What answers the calls of a name.

    Attributes:
        run: gets the request's only message as bytes, or None when it is to read them, and the call. Returns the
            answer's only message as bytes, or None when it has written what there was.
        reads: whether it reads the request's messages from the call.
        lasts: whether it may last for as long as the client likes.
        parse: makes bytes a request, for Call.read. Raises DecodeError.
        serialize: makes an answer bytes, for Call.write.
    """

    run: Callable[[Any, "Call"], Awaitable[bytes | None]]
    reads: bool = False
    lasts: bool = False
    parse: Callable[[Any], Any] = bytes
    serialize: Callable[[Any], bytes] = bytes


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before a request.

    Attributes:
        path: the method's name, as "/package.Service/Method".
        content_type: as it says.
        encoding: of its messages.
        timeout_s: for which its client waits; infinite where it does not say, not a number where it cannot be read.
        metadata: the rest, by name in small letters; binary values are left out.
    """

    path: bytes
    content_type: bytes
    encoding: str
    timeout_s: float
    metadata: Mapping[str, str]


def read_head(headers: Sequence[Header]) -> Head:
    """Sorts a request's headers."""
    given = dict(reversed(headers))  # the first counts
    timeout_s = math.inf
    if b"grpc-timeout" in given:
        found = _TIMEOUT.fullmatch(given[b"grpc-timeout"])
        timeout_s = int(found[1]) * _UNIT_S[found[2]] if found else math.nan
    metadata = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in given.items()
        if not name.startswith(_OF_PROTOCOL) and not name.endswith(b"-bin")
    }
    encoding = given.get(b"grpc-encoding", b"identity").decode("latin-1")
    return Head(given.get(b":path", b""), given.get(b"content-type", b""), encoding, timeout_s, metadata)


class Call:
    """One call, and what takes its stream's data (see http2.Receiver).

    Attributes:
        metadata: what the client sent beside the request.
        due: when the call is ended from outside, monotonic seconds.
        trailing: what goes back behind the answer.
        status: what it ended with; None until then.

    Args:
        connection: the client's.
        stream: the call's on it.
        method: what answers.
        head: the request's.
        most_bytes: of a message.
        window_bytes: of messages that are held before they are read.
        limit_s: for a call that does not last, however long its client would wait.
    """

    __slots__ = (
        "_allowed",
        "_changed",
        "_connection",
        "_deadline",
        "_details",
        "_filled",
        "_head",
        "_message",
        "_messages",
        "_method",
        "_most_bytes",
        "_prefix",
        "_said_all",
        "_size",
        "_stream",
        "_task",
        "_window_bytes",
        "due",
        "metadata",
        "status",
        "trailing",
    )

    def __init__(
        self,
        connection: Connection[Head],
        stream: Stream,
        method: Method,
        head: Head,
        *,
        most_bytes: int,
        window_bytes: int,
        limit_s: float,
    ) -> None:
        now = time.monotonic()
        self.metadata = head.metadata
        self.due = now + (head.timeout_s if method.lasts else min(head.timeout_s, limit_s)) + _PATIENCE_S
        self.trailing: Metadata = ()
        self.status: StatusCode | None = None
        self._connection = connection
        self._stream = stream
        self._method = method
        self._most_bytes = most_bytes
        self._window_bytes = window_bytes
        self._details = ""
        self._deadline = now + head.timeout_s
        self._head = _HEAD  # until it is sent
        self._task: asyncio.Task[None] | None = None
        # the start of the next message, what there is of it, how long it will be, and those that nobody has read
        self._prefix = b""
        self._message: bytearray | None = None
        self._size = self._filled = 0
        self._messages: deque[bytearray] = deque()
        self._said_all = False
        self._allowed = window_bytes
        self._changed: asyncio.Event | None = None
        if head.encoding != "identity":
            self.end_with(StatusCode.UNIMPLEMENTED, f"Compression algorithm '{head.encoding}' is disabled.", _IDENTITY)
        elif math.isnan(head.timeout_s):
            self.end_with(StatusCode.INTERNAL, "expected grpc-timeout to be up to 8 digits and a unit")
        elif method.reads:
            self._task = asyncio.get_running_loop().create_task(self._run(None))

    @property
    def left_s(self) -> float:
        """Seconds until the client's deadline; infinite without one."""
        return self._deadline - time.monotonic()

    async def abort(self, status: StatusCode, details: str = "", trailing: Metadata = ()) -> NoReturn:
        """Ends the call with an error.

        Raises:
            Aborted: always.
        """
        self.status, self._details = status, details
        self.trailing = (*self.trailing, *trailing)
        raise Aborted

    async def read(self) -> Any:  # noqa: ANN401 - the method's request
        """The client's next message; None behind the last.

        Raises:
            DecodeError: it is no message of the method's.
        """
        while not self._messages:
            if self._said_all:
                return None
            await self._change()
        message = self._messages.popleft()
        held = sum(map(len, self._messages)) + (0 if self._message is None else self._size)
        more = self._window_bytes - self._allowed - held
        if more > self._window_bytes // 4:
            self._allowed += more
            self._connection.grant(self._stream, more)
        return self._method.parse(message)

    async def requests(self) -> AsyncIterator[Any]:
        """All messages of the client."""
        while (message := await self.read()) is not None:
            yield message

    async def write(self, message: Any) -> None:  # noqa: ANN401 - the method's answer
        """Sends a message of an answer of several. Waits while the client does not take those before it."""
        while self._stream.outgoing or self._connection.blocked:
            await self._change()
        self._connection.send(self._stream, self._head, _framed(self._method.serialize(message)))
        self._head = b""

    def expire(self) -> None:
        """Ends the call, as it is late."""
        self.end_with(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def end_with(self, status: StatusCode, details: str, trailing: Metadata = ()) -> None:
        """Ends the call from outside: whatever works on it is cancelled."""
        if self.status is not None:
            return
        self.status = status
        if self._stream.outgoing:  # it would wait for the client
            self._connection.reset(self._stream, CANCEL)
        self._finish(_trailers(status, details, trailing))
        if self._task:
            self._task.cancel()

    # -- what the connection says

    def take(self, data: memoryview) -> None:
        """See http2.Receiver."""
        at, end = 0, len(data)
        while at < end and self.status is None:
            if self._message is None:
                missing = _PREFIX_BYTES - len(self._prefix)
                self._prefix += data[at : at + missing]
                at += missing
                if len(self._prefix) == _PREFIX_BYTES:
                    self._begin_message()
            else:
                message, filled = self._grown(self._message), self._filled
                taken = min(len(message) - filled, end - at)
                message[filled : filled + taken] = data[at : at + taken]
                at += taken
                self.wrote(taken)

    def room(self) -> memoryview | None:
        """See http2.Receiver."""
        if self._message is None or self.status:
            return None
        return memoryview(self._grown(self._message))[self._filled :]

    def wrote(self, size: int) -> None:
        """See http2.Receiver."""
        message = self._message
        self._filled += size
        if message is not None and self._filled == self._size:
            self._message = None
            self._messages.append(message)
            self._tell()

    def end(self) -> None:
        """See http2.Receiver."""
        self._said_all = True
        if self.status is not None:
            return
        if self._message is not None or self._prefix:
            self.end_with(StatusCode.INTERNAL, "the request ended within a message")
        elif self._method.reads:
            self._tell()
        elif not self._messages:
            self.end_with(StatusCode.UNIMPLEMENTED, "expected a message, got none")
        else:
            self._task = asyncio.get_running_loop().create_task(self._run(self._messages.popleft()))

    def stop(self) -> None:
        """See http2.Receiver. A client that sends one message after the other might never come to an end."""
        if self._method.reads:
            self._said_all = True
            self._tell()

    def lose(self) -> None:
        """See http2.Receiver."""
        self.status = self.status or StatusCode.CANCELLED
        self._messages.clear()
        self._message = None
        if self._task:
            self._task.cancel()

    def drained(self) -> None:
        """See http2.Receiver."""
        self._tell()

    # -- its way

    def _begin_message(self) -> None:
        compressed, size = self._prefix[0], int.from_bytes(self._prefix[1:])
        self._prefix = b""
        if compressed:
            self.end_with(StatusCode.INTERNAL, "a compressed message without grpc-encoding")
        elif size > self._most_bytes:
            details = f"Received message larger than max ({size} vs. {self._most_bytes})"
            self.end_with(StatusCode.RESOURCE_EXHAUSTED, details)
        elif self._messages and not self._method.reads:
            self.end_with(StatusCode.UNIMPLEMENTED, "expected one message, got more")
        else:
            self._message, self._size, self._filled = bytearray(min(size, _FIRST_BYTES)), size, 0
            self._allowed -= _PREFIX_BYTES + size
            if self._allowed < 0:  # it would never be whole
                self._connection.grant(self._stream, -self._allowed)
                self._allowed = 0
            self.wrote(0)

    def _grown(self, message: bytearray) -> bytearray:
        """The message with room for more: as much as has come, not as much as was said to come, which costs nobody."""
        if self._filled == len(message):
            message.extend(bytes(min(self._filled, self._size - self._filled)))
        return message

    async def _run(self, message: bytearray | None) -> None:
        try:
            answer = await self._method.run(message, self)
        except Aborted:
            self._finish(_trailers(self.status or StatusCode.UNKNOWN, self._details, self.trailing))
        except asyncio.CancelledError:
            if self.status is None:
                raise
        except Exception as error:  # noqa: BLE001 - the last resort; logged with its trace
            _log.exception("unforeseen error")
            self.status = StatusCode.UNKNOWN
            self._finish(_trailers(self.status, f"Unexpected {type(error)}: {error}", self.trailing))
        else:
            self.status = StatusCode.OK
            trailers = _OK + b"".join(literal(name, value) for name, value in self.trailing)
            self._finish(trailers, b"" if answer is None else _framed(answer))

    def _finish(self, trailers: bytes, data: bytes = b"") -> None:
        self._connection.send(self._stream, self._head, data, trailers)
        self._head = b""

    async def _change(self) -> None:
        """Waits until there is another message or room for one."""
        self._changed = self._changed or asyncio.Event()
        await self._changed.wait()

    def _tell(self) -> None:
        if self._changed:
            self._changed.set()
            self._changed = None


def _framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4) + message


def _trailers(status: StatusCode, details: str, metadata: Metadata) -> bytes:
    fields = [("grpc-status", str(status.value[0]))]
    if details:
        fields.append(("grpc-message", quote(details[:_MOST_DETAIL], safe=_PRINTABLE)))
    return b"".join(literal(name, value) for name, value in (*fields, *metadata))
