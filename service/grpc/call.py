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

from service.errors import Overloaded
from service.grpc.http2 import CANCEL, HEADER_BYTES, INTERNAL_ERROR, Connection, Header, Stream, literal
from service.grpc.work import Work

Metadata = Sequence[tuple[str, str]]

_HEAD: Final = b"\x88" + literal("content-type", "application/grpc")
"""Of an answer: status 200, which is in HPACK's static table, and what it is."""
_OK: Final = literal("grpc-status", "0")
_IDENTITY: Final = (("grpc-accept-encoding", "identity"),)
_BUSY: Final = (("graft-error-code", Overloaded.code), ("grpc-retry-pushback-ms", "1000"))
_PREFIX_BYTES: Final = 5
_FIRST_BYTES: Final = 1 << 16
"""Of a message that are made room for at least, when it does not come as a whole."""
_GROWTH: Final = 3
"""How much room is added to what has come, in times of that."""
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_OF_PROTOCOL: Final = (b":", b"grpc-")
_CONTENT_TYPE: Final = re.compile(rb"application/grpc(?:[+;]|$)")
_PRINTABLE: Final = "".join(chr(one) for one in range(0x20, 0x7F) if chr(one) != "%")
_PLAIN: Final = re.compile(r"[ -$&-~]*")
"""What may stand in a header as it is: printable ASCII but the percent sign."""
_MOST_DETAIL: Final = 1024
"""Characters of an error's text: clients refuse headers that are long."""
_PATIENCE_S: Final = 0.5
"""For so long after its deadline a call may find words of its own for it."""
_UNREAD_S: Final = 30.0
"""For so long a client may leave us without room for any more of an answer."""
_UNREAD_MESSAGES: Final = 1 << 14
"""So many of a call may wait to be read; the small ones take more memory than they have bytes."""

_log = logging.getLogger("graft.grpc")


class Aborted(Exception):
    """A handler ends its call with a status that is not OK; see Call.abort.

    Args:
        status: what goes back.
        details: the error's text.
        trailing: what goes back besides.
    """

    def __init__(self, status: StatusCode, details: str, trailing: Metadata) -> None:
        super().__init__(details)
        self.status = status
        self.details = details
        self.trailing = trailing


@dataclass(frozen=True, slots=True)
class Method:
    """What answers the calls of a name.

    Attributes:
        run: gets the request's only message as bytes, or None when it is to read them, and the call. Returns the
            answer's only message as bytes, or None when it has written what there was.
        reads: whether it reads the request's messages from the call.
        lasts: whether it may last for as long as the client likes.
        refuses: says before the request's message is read why it cannot be answered; None for nothing.
        parse: makes bytes a request, for Call.read. Raises DecodeError.
        serialize: makes an answer bytes, for Call.write.
    """

    run: Callable[[Any, "Call"], Awaitable[bytes | None]]
    reads: bool = False
    lasts: bool = False
    refuses: Callable[["Call"], Aborted | None] | None = None
    parse: Callable[[Any], Any] = bytes
    serialize: Callable[[Any], bytes] = bytes


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before a request.

    Attributes:
        path: the method's name, as "/package.Service/Method".
        is_grpc: whether it is a call at all.
        timeout_s: for which its client waits; infinite where it does not say.
        metadata: the rest, by name in small letters; binary values are left out.
        refusal: why it cannot be answered.
    """

    path: bytes
    is_grpc: bool
    timeout_s: float
    metadata: Mapping[str, str]
    refusal: Aborted | None


def read_head(headers: Sequence[Header]) -> Head:
    """Sorts a request's headers."""
    given = dict(reversed(headers))  # the first counts
    metadata = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in given.items()
        if not name.startswith(_OF_PROTOCOL) and not name.endswith(b"-bin")
    }
    timeout_s, refusal = math.inf, None
    if b"grpc-timeout" in given:
        found = _TIMEOUT.fullmatch(given[b"grpc-timeout"])
        if found:
            timeout_s = int(found[1]) * _UNIT_S[found[2]]
        else:
            refusal = Aborted(StatusCode.INTERNAL, "expected grpc-timeout to be up to 8 digits and a unit", ())
    encoding = given.get(b"grpc-encoding", b"identity").decode("latin-1")
    if encoding != "identity":
        refusal = Aborted(StatusCode.UNIMPLEMENTED, f"Compression algorithm '{encoding}' is disabled.", _IDENTITY)
    size = sum(len(name) + len(value) for name, value in headers)
    if size > HEADER_BYTES:
        details = f"expected at most {HEADER_BYTES} bytes of headers, got {size}"
        refusal = Aborted(StatusCode.RESOURCE_EXHAUSTED, details, ())
    is_grpc = _CONTENT_TYPE.match(given.get(b"content-type", b"")) is not None
    return Head(given.get(b":path", b""), is_grpc, timeout_s, metadata, refusal)


class Room:
    """For the messages of all clients together, from their first byte until they are answered or read.

    Args:
        most_bytes: that there may be.
    """

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes

    def take(self, size: int) -> bool:
        """Takes so many bytes; whether they were left."""
        self._left -= size
        return self._left >= 0

    def give(self, size: int) -> None:
        """Gives them back."""
        self._left += size


class Call:
    """One call, and what takes its stream's data (see http2.Receiver).

    Attributes:
        metadata: what the client sent beside the request.
        due: when it is to be ended from outside, monotonic seconds.
        trailing: what goes back behind the answer.
        over: whether its end is decided, if perhaps not sent yet.

    Args:
        connection: the client's.
        stream: the call's on it.
        method: what answers.
        head: the request's.
        most_bytes: of a message.
        window_bytes: of messages that are held before they are read.
        room: for messages.
        limit_s: for a call that does not last, however long its client would wait.
    """

    __slots__ = (
        "_allowed",
        "_changed",
        "_connection",
        "_deadline",
        "_filled",
        "_head",
        "_held",
        "_limit_s",
        "_message",
        "_messages",
        "_method",
        "_most_bytes",
        "_prefix",
        "_room",
        "_said_all",
        "_size",
        "_stream",
        "_taken",
        "_unsent",
        "_window_bytes",
        "_work",
        "due",
        "metadata",
        "over",
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
        room: Room,
        limit_s: float,
    ) -> None:
        now = time.monotonic()
        self.metadata = head.metadata
        self.trailing: Metadata = ()
        self.over = False
        self._deadline = now + head.timeout_s
        self._limit_s = math.inf if method.lasts else limit_s
        self.due = min(self._deadline, now + self._limit_s) + _PATIENCE_S  # for the request; see `said_all`
        self._connection = connection
        self._stream = stream
        self._method = method
        self._most_bytes = most_bytes
        self._window_bytes = window_bytes
        self._room = room
        self._taken = 0
        self._head = _HEAD  # until it is sent
        self._unsent = 0
        self._work: Work | asyncio.Task[None] | None = None
        # the start of the next message, what there is of it, how long it will be, and those that nobody has read
        self._prefix = b""
        self._message: bytearray | None = None
        self._size = self._filled = 0
        self._messages: deque[bytearray] = deque()
        self._said_all = False
        # bytes that the client may send, and those of messages that are not read: together, a window
        self._allowed = window_bytes
        self._held = 0
        self._changed: asyncio.Event | None = None
        refusal = head.refusal or (method.refuses(self) if method.refuses else None)
        if refusal:
            self.end_with(refusal)
        elif method.reads:
            self._work = asyncio.get_running_loop().create_task(self._run())

    @property
    def left_s(self) -> float:
        """Seconds until the client's deadline; infinite without one."""
        return self._deadline - time.monotonic()

    async def abort(self, status: StatusCode, details: str = "", trailing: Metadata = ()) -> NoReturn:
        """Ends the call with an error.

        Raises:
            Aborted: always.
        """
        raise Aborted(status, details, trailing)

    async def read(self) -> Any:  # noqa: ANN401 - the method's request
        """The client's next message; None behind the last.

        Raises:
            DecodeError: it is no message of the method's.
        """
        await asyncio.sleep(0)  # others have their turn between two messages that are there
        while not self._messages:
            if self._said_all:
                return None
            await self._change()
        message = self._messages.popleft()
        self._give(len(message))
        self._held -= _PREFIX_BYTES + len(message)
        more = self._window_bytes - self._allowed - self._held
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
        if self.over:  # but for the client, which has not let us send all of it
            unsent = sum(map(len, self._stream.outgoing))
            if unsent < self._unsent:
                self._unsent, self.due = unsent, time.monotonic() + _UNREAD_S
            else:
                self._connection.reset(self._stream, CANCEL)
            return
        self.end_with(Aborted(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", ()))

    def end_with(self, aborted: Aborted) -> None:
        """Ends the call from outside: whatever works on it is cancelled, what was not sent yet is left out."""
        if self.over:
            return
        self._connection.drop(self._stream)
        self._end(aborted.status, aborted.details, aborted.trailing)
        if self._work:
            self._work.cancel()

    # -- what the connection says

    def take(self, data: memoryview) -> None:
        """See http2.Receiver."""
        at, end = 0, len(data)
        while at < end and not self.over:
            if self._message is None:
                missing = _PREFIX_BYTES - len(self._prefix)
                self._prefix += data[at : at + missing]
                at += missing
                if len(self._prefix) == _PREFIX_BYTES:
                    at += self._begin_message(data[at:])
            else:
                message, filled = self._grown(self._message), self._filled
                taken = min(len(message) - filled, end - at)
                message[filled : filled + taken] = data[at : at + taken]
                at += taken
                self.wrote(taken)

    def room(self) -> memoryview | None:
        """See http2.Receiver."""
        if self._message is None:
            return None
        message = self._grown(self._message)
        return None if self.over else memoryview(message)[self._filled :]

    def wrote(self, size: int) -> None:
        """See http2.Receiver."""
        message = self._message
        self._filled += size
        if message is not None and self._filled == self._size:
            self._message = None
            self._messages.append(message)
            self._tell()

    def said_all(self) -> None:
        """See http2.Receiver."""
        self._said_all = True
        if self.over:
            return
        if self._message is not None or self._prefix:
            self.end_with(Aborted(StatusCode.INTERNAL, "the request ended within a message", ()))
        elif self._method.reads:
            self._tell()
        elif not self._messages:
            self.end_with(Aborted(StatusCode.UNIMPLEMENTED, "expected a message, got none", ()))
        else:
            self.due = min(self._deadline, time.monotonic() + self._limit_s) + _PATIENCE_S
            self._work = Work(self._run())

    def stop(self) -> None:
        """See http2.Receiver. A client that sends one message after the other might never come to an end."""
        if self._method.reads:
            self._said_all = True
            self._tell()

    def give_up(self) -> None:
        """See http2.Receiver."""
        self.end_with(Aborted(StatusCode.UNAVAILABLE, "the service is ending", ()))

    def lose(self) -> None:
        """See http2.Receiver."""
        self.over = True
        self._forget()
        if self._work:
            self._work.cancel()

    def drained(self) -> None:
        """See http2.Receiver."""
        self._tell()

    # -- its way

    def _begin_message(self, data: memoryview) -> int:
        """Begins a message with what has come of it; returns how much that is."""
        compressed, size = self._prefix[0], int.from_bytes(self._prefix[1:])
        self._prefix = b""
        refusal = None
        if compressed:
            refusal = Aborted(StatusCode.INTERNAL, "a compressed message without grpc-encoding", ())
        elif size > self._most_bytes:
            details = f"Received message larger than max ({size} vs. {self._most_bytes})"
            refusal = Aborted(StatusCode.RESOURCE_EXHAUSTED, details, ())
        elif self._messages and not self._method.reads:
            refusal = Aborted(StatusCode.UNIMPLEMENTED, "expected one message, got more", ())
        elif len(self._messages) >= _UNREAD_MESSAGES:
            details = f"expected at most {_UNREAD_MESSAGES} messages that wait to be read"
            refusal = Aborted(StatusCode.RESOURCE_EXHAUSTED, details, ())
        if refusal:
            self.end_with(refusal)
            return 0
        start = data[:size]
        reserved = min(size, max(len(start), _FIRST_BYTES))
        if not self._reserve(reserved):
            return 0
        self._message, self._size = bytearray(reserved), size
        self._message[: len(start)] = start
        self._held += _PREFIX_BYTES + size
        self._allowed -= _PREFIX_BYTES + size
        if self._allowed < 0:  # it would never be whole
            self._connection.grant(self._stream, -self._allowed)
            self._allowed = 0
        self._filled = 0
        self.wrote(len(start))
        return len(start)

    def _grown(self, message: bytearray) -> bytearray:
        """The message with room for more, by what has come of it: to say that it is large costs a client nothing."""
        if self._filled == len(message):
            more = min(max(_FIRST_BYTES, _GROWTH * self._filled), self._size - self._filled)
            if self._reserve(more):
                message.extend(bytes(more))
        return message

    def _reserve(self, size: int) -> bool:
        """Takes room for so many bytes of messages; where there is none, the call ends."""
        self._taken += size
        if self._room.take(size):
            return True
        details = "too many messages are on their way or being answered"
        self.end_with(Aborted(StatusCode.RESOURCE_EXHAUSTED, details, _BUSY))
        return False

    async def _run(self) -> None:
        try:
            # nothing here keeps the message
            answer = await self._method.run(None if self._method.reads else self._messages.popleft(), self)
        except Aborted as aborted:
            self._end(aborted.status, aborted.details, aborted.trailing)
        except asyncio.CancelledError:
            self._end(StatusCode.CANCELLED, "the call was cancelled")
        except Exception as error:  # noqa: BLE001 - the last resort; logged with its trace
            _log.exception("unforeseen error")
            self._end(StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")
        else:
            self._end(StatusCode.OK, data=b"" if answer is None else _framed(answer))

    def _end(self, status: StatusCode, details: str = "", trailing: Metadata = (), data: bytes = b"") -> None:
        """Sends the end, unless it was sent before."""
        if self.over:
            return
        self.over = True
        self._forget()
        try:
            trailers = _trailers(status, details, (*self.trailing, *trailing))
        except UnicodeEncodeError:
            _log.exception("metadata that are not ASCII")
            self._connection.reset(self._stream, INTERNAL_ERROR)
            return
        head = self._head
        if not data and not self._stream.outgoing:  # nothing but trailers: only then clients may try again
            head, trailers = b"", head + trailers
        self._connection.send(self._stream, head, data, trailers)
        self._unsent, self.due = sum(map(len, self._stream.outgoing)), time.monotonic() + _UNREAD_S

    def _forget(self) -> None:
        self._messages.clear()
        self._message = None
        self._give(self._taken)

    def _give(self, size: int) -> None:
        self._taken -= size
        self._room.give(size)

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
    block = _OK if status is StatusCode.OK else literal("grpc-status", str(status.value[0]))
    if details:
        details = details[:_MOST_DETAIL]
        if not _PLAIN.fullmatch(details):
            details = quote(details, safe=_PRINTABLE, errors="replace")
        block += literal("grpc-message", details)
    return block + b"".join([literal(name, value) for name, value in metadata])
