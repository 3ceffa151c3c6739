"""The commonest request, answered without gunicorn's parser and without Flask: they cost more than all else in a front.

A plain request is POST /classify over HTTP/1.1 with one image as its body: a head that arrived in one piece, is short,
says nothing out of the ordinary, and names the length of a small body. `read_head` is strict: whatever it does not know
for certain is left untouched on the connection for gunicorn and Flask, whose way is the definition of what is right.
What a request asks, and what the answer says, is read and written by the same functions there and here.
"""

import logging
import re
import socket
import time
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import lru_cache
from typing import Final

from gunicorn import SERVER

from service import errors
from service.classifier import Classifier
from service.exchange import Observer, is_request_id, observe_answer
from service.http import reply
from service.http.disconnects import CLIENT_GONE, ClientGone
from service.http.terms import read_asked, read_terms, reading
from service.http.waiting import answer_of
from service.metrics import count_request
from service.request import Request
from service.terms import Terms

_LARGEST_BODY_BYTES: Final = 1 << 20
"""Small enough to read all of it before asking whether it could be answered in time."""
_HEAD: Final = re.compile(
    rb"POST /classify(?:\?([A-Za-z0-9_.~=&-]*))? HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[\t -~]*\r\n)+)\r\n"
)
_LENGTH: Final = re.compile(r"[1-9][0-9]{0,6}")
_UNUSUAL: Final = frozenset({"Transfer-Encoding", "Expect", "Upgrade", "Te", "Trailer", "Http2-Settings"})
_NO_NAME: Final = ("",)
_RAW: Final = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
_log = logging.getLogger("graft.http")


@dataclass(frozen=True, slots=True)
class Plain:
    """What stands before the image.

    Attributes:
        args: the query.
        headers: by name, with capitals as in Content-Type.
        head_bytes: how long it is.
        body_bytes: how long the image is.
    """

    args: dict[str, str]
    headers: dict[str, str]
    head_bytes: int
    body_bytes: int


def read_head(start: bytes) -> Plain | None:
    """Reads the start of a request; None when it is not plain, or not yet."""
    found = _HEAD.match(start)
    if found is None:
        return None
    headers: dict[str, str] = {}
    for line in found[2].decode("ascii").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name = name.title()
        if name in headers or name in _UNUSUAL:
            return None
        headers[name] = value.strip(" \t")
    if headers.get("Connection", "keep-alive").lower() != "keep-alive":
        return None
    kind = headers.get("Content-Type", "").lower()
    if ";" in kind or not (kind in _RAW or kind.startswith("image/")):
        return None
    length = headers.get("Content-Length", "")
    if not _LENGTH.fullmatch(length) or int(length) > _LARGEST_BODY_BYTES:
        return None
    args: dict[str, str] = {}
    if found[1]:
        for pair in found[1].decode("ascii").split("&"):
            name, _, value = pair.partition("=")
            args.setdefault(name, value)  # the first counts, as in Flask
    return Plain(args, headers, found.end(), int(length))


class PlainRequests:
    """Answers plain requests.

    Args:
        classifier: on this process's gevent hub.
        observer: this process's.
        limit_s: seconds that the service gives a request.
        max_body_bytes: largest body.
    """

    def __init__(self, classifier: Classifier, observer: Observer, limit_s: float, max_body_bytes: int) -> None:
        self._classifier = classifier
        self._observer = observer
        self._limit_s = limit_s
        self._max_body_bytes = max_body_bytes

    def answer_next(self, connection: socket.socket, start: bytes, *, last: bool) -> bool | None:
        """Answers the request whose start has been seen but not taken from the connection.

        Args:
            connection: the client's.
            start: of the request.
            last: say that the connection ends after it.

        Returns:
            Whether the connection can take another; None when the request is not plain and still there, whole.

        Raises:
            OSError: the client has gone.
        """
        plain = read_head(start)
        if plain is None or plain.body_bytes > self._max_body_bytes:
            return None
        request_id = plain.headers.get("X-Request-Id", "")
        if request_id and not is_request_id(request_id):
            return None
        try:
            terms = read_terms(self._limit_s, plain)
            asked = read_asked(terms, plain)
        except errors.GraftError:
            return None
        exchange = self._observer.begin(
            "http",
            "POST /classify",
            request_id,
            traceparent=plain.headers.get("Traceparent", ""),
            tracestate=plain.headers.get("Tracestate", ""),
        )
        try:
            image = self._take(connection, plain, terms)
            answer = self._answer(connection, asked, terms, image)
        except errors.GraftError as error:  # it did not arrive in time
            answer, last = reply.refused(error), True
        except ClientGone:
            count_request("http", CLIENT_GONE)
            exchange.end(CLIENT_GONE, failed=True)
            return False
        status = f"{answer.status:d}"
        count_request("http", status)
        exchange.end(status, failed=status >= "4")
        connection.sendall(_written(answer, exchange.request_id, last=last))
        return not last

    def _take(self, connection: socket.socket, plain: Plain, terms: Terms) -> bytes:
        """Takes exactly this request from the connection; returns its body.

        Raises:
            DeadlineExceeded, RequestTimeout: it does not come in time.
            ClientGone: the connection ends before.
        """
        whole = memoryview(bytearray(plain.head_bytes + plain.body_bytes))
        taken = connection.recv_into(whole)  # does not wait: the head is there
        if taken < len(whole):
            with reading(terms, self._limit_s, plain):
                while taken < len(whole):
                    more = connection.recv_into(whole[taken:])
                    if not more:
                        raise ClientGone
                    taken += more
        return bytes(whole[plain.head_bytes :])

    def _answer(self, connection: socket.socket, asked: Request, terms: Terms, image: bytes) -> reply.Reply:
        started = time.monotonic()
        try:
            asked = replace(asked, images=(image,), timeout_s=terms.left_s)
            answer = answer_of(self._classifier, asked, connection.fileno())
            observe_answer("http", time.monotonic() - started, answer)
            return reply.answered(answer, _NO_NAME)
        except errors.GraftError as error:
            return reply.refused(error)
        except ClientGone:
            raise
        except Exception:  # noqa: BLE001 - as for every other request: the client hears of it, the front goes on
            _log.exception("unforeseen error on a plain request")
            return reply.refused(errors.InternalError("an unforeseen error; the service's log knows more"))


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
