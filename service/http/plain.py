"""The commonest request, answered without gunicorn's parser, Flask and greenlets, which cost more than all else there.

What is plain, head.py says; every other request is left on its connection, untouched, for gunicorn and Flask. What a
request asks, and what the answer says, is read and written by the same functions there and here. Everything happens in
callbacks of the hub, so nothing here waits.
"""

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import lru_cache
from typing import Final

from gunicorn import SERVER

from service import errors
from service.call import Call
from service.classifier import Classifier
from service.exchange import Exchange, Observer, is_request_id, observe_answer, present, set_present
from service.http import reply
from service.http.disconnects import CLIENT_GONE, Disconnects
from service.http.head import Head, read_head
from service.http.terms import late_request, read_asked, read_terms, read_timeout_s
from service.metrics import IN_FLIGHT, count_request
from service.reactor import Cancellable, Reactor
from service.request import Answer, Request
from service.terms import LEAST_S

_PEEK_BYTES: Final = 1 << 13
"""As much of a request as is looked at; a longer head is not plain."""
_NO_NAME: Final = ("",)
_REMEMBERED: Final = 256
_log = logging.getLogger("graft.http")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What requests with one head ask.

    Attributes:
        head: theirs.
        request: without its image.
        timeout_s: for each of them.
    """

    head: Head
    request: Request
    timeout_s: float


class PlainRequests:
    """What answers plain requests.

    Args:
        classifier: on this process's gevent hub.
        reactor: the same hub.
        observer: this process's.
        limit_s: seconds that the service gives a request.
        max_body_bytes: largest body.
    """

    def __init__(
        self, classifier: Classifier, reactor: Reactor, observer: Observer, *, limit_s: float, max_body_bytes: int
    ) -> None:
        self.classifier = classifier
        self.reactor = reactor
        self.observer = observer
        self.disconnects = Disconnects(reactor)
        self.limit_s = limit_s
        self._max_body_bytes = max_body_bytes
        self._asked = lru_cache(maxsize=_REMEMBERED)(self._read)

    def read(self, start: bytes) -> "tuple[_Asked, int, int] | None":
        """Reads the start of a request; None when it is not plain.

        Returns:
            What it asks, and how many bytes its head and its image have.
        """
        found = read_head(start)
        if found is None:
            return None
        head, head_bytes, body_bytes = found
        asked = self._asked(head)
        if asked is None or body_bytes > self._max_body_bytes:
            return None
        return asked, head_bytes, body_bytes

    def connect(
        self,
        client: socket.socket,
        on_end: "Callable[[Connection, socket.socket | None], None]",
        is_last: Callable[[], bool],
    ) -> "Connection":
        """See Connection."""
        return Connection(self, client, on_end, is_last)

    def _read(self, head: Head) -> _Asked | None:
        request_id = head.headers.get("X-Request-Id", "")
        if request_id and not is_request_id(request_id):
            return None
        try:
            terms = read_terms(self.limit_s, head)
            return _Asked(head, read_asked(terms, head), read_timeout_s(self.limit_s, head))
        except errors.GraftError:
            return None


class _Turn:
    """A request on a connection, and its answer.

    Attributes:
        asked: what it asks.
        exchange: its.
        head_bytes: what stands before its image.
        whole: room for all of it, as long as a part has yet to come.
        taken: how much of it has.
        timer: for what has to happen if nothing else does.
        submitted: when it went to the classifier, monotonic seconds.
        call: the classifier's, while it works on it.
    """

    __slots__ = ("asked", "call", "exchange", "head_bytes", "submitted", "taken", "timer", "whole")

    def __init__(self, asked: _Asked, exchange: Exchange, head_bytes: int) -> None:
        self.asked = asked
        self.exchange = exchange
        self.head_bytes = head_bytes
        self.whole: memoryview | None = None
        self.taken = 0
        self.timer: Cancellable | None = None
        self.submitted = 0.0
        self.call: Call | None = None


class Connection:
    """A client's connection, as long as its requests are plain.

    Args:
        plain: answers them.
        client: non-blocking, and not gevent's.
        on_end: called at the end: with the client when its next request, of which nothing was taken, is not plain, and
            with None when it was hung up on.
        is_last: whether an answer that is written now should be the connection's last.
    """

    def __init__(
        self,
        plain: PlainRequests,
        client: socket.socket,
        on_end: "Callable[[Connection, socket.socket | None], None]",
        is_last: Callable[[], bool],
    ) -> None:
        self._plain = plain
        self._client = client
        self._on_end = on_end
        self._is_last = is_last
        self._listening: Cancellable | None = None
        self._turn: _Turn | None = None
        self._idle_since = time.monotonic()
        # of the answer that is being written
        self._left = memoryview(b"")
        self._writing: Cancellable | None = None
        self._last = False
        self._listen()

    def hang_up_if_idle(self, since: float) -> None:
        """Ends it when it has waited for a request since then, monotonic seconds, or for longer."""
        if self._turn is None and not self._left and self._idle_since <= since:
            self._close()

    def _listen(self) -> None:
        if self._listening is None:
            self._listening = self._plain.reactor.on_readable(self._client.fileno(), self._readable)

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None

    def _readable(self) -> None:
        turn = self._turn
        try:
            if turn is None and not self._left:
                self._begin(self._client.recv(_PEEK_BYTES, socket.MSG_PEEK))
            elif turn is not None and turn.whole is not None:
                self._take(turn, turn.whole)
            elif turn is None or self._client.recv(1, socket.MSG_PEEK):
                self._stop_listening()  # what is there has to wait until this answer is written
                if turn is not None and turn.call:
                    self._plain.disconnects.watch(self._client.fileno(), self._lose)
            else:
                self._lose()
        except BlockingIOError:
            pass
        except OSError:
            self._lose()
        except Exception:  # noqa: BLE001 - a fault of ours must not be met again and again
            _log.exception("unforeseen error on a connection")
            self._lose()
        finally:
            set_present(None)

    # -- a request

    def _begin(self, start: bytes) -> None:
        if not start:
            self._close()
            return
        found = self._plain.read(start)
        if found is None:
            self._stop_listening()
            self._on_end(self, self._client)
            return
        asked, head_bytes, body_bytes = found
        headers = asked.head.headers
        exchange = self._plain.observer.begin(
            "http",
            "POST /classify",
            headers.get("X-Request-Id", ""),
            traceparent=headers.get("Traceparent", ""),
            tracestate=headers.get("Tracestate", ""),
        )
        turn = self._turn = _Turn(asked, exchange, head_bytes)
        come = self._client.recv(head_bytes + body_bytes)  # and nothing of what is behind it
        if len(come) == head_bytes + body_bytes:
            self._submit(turn, come[head_bytes:])
            return
        turn.whole, turn.taken = memoryview(bytearray(head_bytes + body_bytes)), len(come)
        turn.whole[: turn.taken] = come
        late = late_request(asked.timeout_s, self._plain.limit_s)
        self._later(turn, asked.timeout_s, lambda: self._reply(turn, reply.refused(late), last=True))

    def _take(self, turn: _Turn, whole: memoryview) -> None:
        size = self._client.recv_into(whole[turn.taken :])
        if not size:
            self._lose()
            return
        turn.taken += size
        if turn.taken == len(whole):
            turn.whole = None
            if turn.timer:
                turn.timer.cancel()
            set_present(turn.exchange)
            self._submit(turn, bytes(whole[turn.head_bytes :]))

    def _submit(self, turn: _Turn, image: bytes) -> None:
        turn.submitted = time.monotonic()
        left_s = max(LEAST_S, turn.exchange.started + turn.asked.timeout_s - turn.submitted)
        try:
            request = replace(turn.asked.request, images=(image,), timeout_s=left_s)
            call = self._plain.classifier.submit(request, lambda answer: self._answer(turn, answer))
        except errors.GraftError as error:
            refused = reply.refused(error)  # the error itself would keep the image
            if isinstance(error, errors.Overloaded) and error.kept_back_s:
                self._later(turn, error.kept_back_s, lambda: self._reply(turn, refused))
            else:
                self._reply(turn, refused)
        except Exception:  # noqa: BLE001 - as for every other request: the client hears of it, the front goes on
            self._fail(turn)
        else:
            if self._turn is turn:  # else it was answered at once
                turn.call = call
                IN_FLIGHT.inc()

    def _later(self, turn: _Turn, seconds: float, call: Callable[[], None]) -> None:
        """Calls, if the request has not ended before."""

        def run() -> None:
            set_present(turn.exchange)
            try:
                call()
            finally:
                set_present(None)

        turn.timer = self._plain.reactor.call_later(seconds, run)

    def _lose(self) -> None:
        """The client has gone: nothing more is done for it."""
        turn = self._turn
        self._end_turn()
        self._close()
        if turn is not None:
            if turn.timer:
                turn.timer.cancel()
            if turn.call:
                turn.call.cancel()
                IN_FLIGHT.dec()
            count_request("http", CLIENT_GONE)
            set_present(turn.exchange)
            turn.exchange.end(CLIENT_GONE, failed=True)
            set_present(None)

    def _end_turn(self) -> None:
        self._turn = None
        if self._listening is None:
            self._plain.disconnects.forget(self._client.fileno())

    # -- its answer

    def _answer(self, turn: _Turn, answer: Answer) -> None:
        if self._turn is not turn:
            return
        if turn.call:
            IN_FLIGHT.dec()
        before = present()  # who has heard of this answer may have been asking for something else
        set_present(turn.exchange)
        try:
            observe_answer("http", time.monotonic() - turn.submitted, answer)
            self._reply(turn, reply.answered(answer, _NO_NAME))
        except Exception:  # noqa: BLE001 - see above
            self._fail(turn)
        finally:
            set_present(before)

    def _fail(self, turn: _Turn) -> None:
        """In an exception that nobody has foreseen."""
        _log.exception("unforeseen error on a plain request")
        self._reply(turn, reply.refused(errors.InternalError("an unforeseen error; the service's log knows more")))

    def _reply(self, turn: _Turn, answer: reply.Reply, *, last: bool = False) -> None:
        if self._turn is not turn:
            return
        self._end_turn()
        self._last = last or self._is_last()
        status = f"{answer.status:d}"
        try:
            count_request("http", status)
            turn.exchange.end(status, failed=status >= "4")
            self._left = memoryview(_written(answer, turn.exchange.request_id, last=self._last))
        except Exception:  # noqa: BLE001 - see above; and this may be called by what others wait for, too
            _log.exception("unforeseen error at the end of a plain request")
            self._close()
        else:
            self._write()

    def _write(self) -> None:
        try:
            self._left = self._left[self._client.send(self._left) :]
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        if self._left:
            if self._writing is None:
                self._writing = self._plain.reactor.on_writable(self._client.fileno(), self._write)
            return
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        if self._last:
            self._close()
        else:
            self._idle_since = time.monotonic()
            self._listen()

    def _close(self) -> None:
        self._stop_listening()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        self._client.close()
        self._on_end(self, None)


def _written(answer: reply.Reply, request_id: str, *, last: bool) -> bytes:
    head = [
        f"HTTP/1.1 {answer.status:d} {answer.status.phrase}",
        f"Server: {SERVER}",
        f"Date: {_date(int(time.time()))}",
        f"Connection: {'close' if last else 'keep-alive'}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        *(f"{name}: {value}" for name, value in answer.headers),
        f"X-Request-Id: {request_id}",
        "\r\n",
    ]
    return "\r\n".join(head).encode("ascii") + answer.body


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
