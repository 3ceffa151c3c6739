"""One request and its answer as metrics, log and traces see them: its id, its times, its outcome.

A front begins an exchange when a request has arrived and ends it when the answer's bytes are ready. In between, whoever
knows something says so to the present one, without having been given it. What a protocol looks like is not known here.
"""

import logging
import random
import re
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from service.errors import InternalError, PoisonImage
from service.metrics import count_answer, count_failure, observe_encode
from service.request import Answer
from service.settings import Settings

if TYPE_CHECKING:
    from service.traces import Traces

_ID: Final = re.compile(r"[!-~]{1,128}")
_OURS: Final = {InternalError.code, PoisonImage.code}
_access_log = logging.getLogger("graft.access")
_log = logging.getLogger("graft.exchange")


def is_request_id(text: str) -> bool:
    """Whether a request may be called so: 1 to 128 printable ASCII characters without spaces."""
    return _ID.fullmatch(text) is not None


class Exchange:
    """What is known of a request; see Observer.

    Attributes:
        protocol: "http" or "grpc".
        method: what was called, such as "POST /classify".
        request_id: the client's, or one that was made.
        started: when it arrived, monotonic seconds.
        submitted: when its images were there; 0 until then, as are the next two.
        answered: when the classifier's answer was there.
        answer: the classifier's; None for other requests.
        code: why it failed as a whole, a word from the error table or the protocol's; empty when it did not.
        span: its trace's, where there are traces.
    """

    __slots__ = (
        "answer",
        "answered",
        "code",
        "method",
        "observer",
        "protocol",
        "request_id",
        "span",
        "started",
        "submitted",
    )

    def __init__(self, observer: "Observer", protocol: str, method: str, request_id: str) -> None:
        self.observer = observer
        self.protocol = protocol
        self.method = method
        self.request_id = request_id
        self.started = time.monotonic()
        self.submitted = self.answered = 0.0
        self.answer: Answer | None = None
        self.code = ""
        self.span: Any = None

    def part(self) -> "Exchange":
        """Begins one of many requests of this one, a stream, and makes it the present one."""
        return self.observer.begin(self.protocol, self.method, self.request_id, parent=self.span)

    def end(self, status: str, *, failed: bool) -> None:
        """Ends it; see Observer.end."""
        self.observer.end(self, status, failed=failed)


_present: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


def present() -> Exchange | None:
    """The exchange that this task or greenlet works on."""
    return _present.get()


def set_present(exchange: Exchange | None) -> None:
    """Says which exchange is worked on from here on; for callbacks of a loop, which have no context of their own."""
    _present.set(exchange)


def observe_answer(protocol: str, seconds: float, answer: Answer) -> None:
    """Counts the classifier's answer, and remembers it for the present exchange.

    Args:
        protocol: "http" or "grpc".
        seconds: from the whole request read to the answer.
        answer: the classifier's.
    """
    count_answer(protocol, seconds, answer)
    exchange = _present.get()
    if exchange is not None:
        exchange.answered = time.monotonic()
        exchange.submitted = max(exchange.started, exchange.answered - seconds)
        exchange.answer = answer
    for number, result in enumerate(answer.results):
        if result.error.code in _OURS:
            error = result.error
            _log.error(
                "image %d, %s version %d: %s: %s", number, answer.model, answer.version, error.code, error.detail
            )


def note_failure(code: str) -> None:
    """Says why the present request fails as a whole."""
    exchange = _present.get()
    if exchange is not None:
        exchange.code = code


class Observer:
    """Begins and ends the exchanges of one process.

    Args:
        settings: what to log, and where traces go.
    """

    def __init__(self, settings: Settings) -> None:
        self._logs_access = settings.access_log == "on"
        self.traces: Traces | None = None
        if settings.otlp_endpoint:
            from service import traces  # noqa: PLC0415 - an extra that need not be installed

            self.traces = traces.Traces(settings.otlp_endpoint)

    def begin(
        self,
        protocol: str,
        method: str,
        request_id: str = "",
        *,
        traceparent: str = "",
        tracestate: str = "",
        parent: Any = None,  # noqa: ANN401 - a span of an extra that need not be installed
    ) -> Exchange:
        """Begins an exchange and makes it the present one.

        Args:
            protocol: "http" or "grpc".
            method: what was called.
            request_id: the client's, checked; empty to make one.
            traceparent: the client's span, as W3C Trace Context writes it; empty for none.
            tracestate: what belongs to it.
            parent: the span of the stream that it is part of.
        """
        exchange = Exchange(self, protocol, method, request_id or f"{random.getrandbits(64):016x}")
        if self.traces:
            exchange.span = self.traces.begin(exchange, traceparent, tracestate, parent)
        _present.set(exchange)
        return exchange

    def end(self, exchange: Exchange, status: str, *, failed: bool) -> None:
        """Ends an exchange: its answer's bytes are ready.

        Args:
            exchange: which.
            status: the protocol's, such as "200" or "OK".
            failed: whether that is an error.
        """
        ended = time.monotonic()
        if failed:
            exchange.code = exchange.code or status
            count_failure(exchange.protocol, exchange.code)
        if exchange.answered:
            observe_encode(exchange.protocol, ended - exchange.answered)
        if self._logs_access:
            _access_log.info("answered", extra={"fields": _access(exchange, status, ended)})
        if self.traces:
            self.traces.end(exchange, status, ended, failed=failed)

    def close(self) -> None:
        """Sends the traces that are left. Call it before the interpreter ends: then gevent is of no use any more."""
        if self.traces:
            self.traces.close()


def _access(exchange: Exchange, status: str, ended: float) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "protocol": exchange.protocol,
        "method": exchange.method,
        "status": status,
        "duration_ms": round((ended - exchange.started) * 1e3, 3),
    }
    if exchange.code:
        fields["code"] = exchange.code
    if exchange.answer:
        answer = exchange.answer
        fields |= {"model": answer.model, "version": answer.version, "images": len(answer.results)}
    return fields
