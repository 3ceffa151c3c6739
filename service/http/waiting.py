"""How an HTTP request waits: for its own body, and for the classifier's answer. Other requests go on meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import gevent
from flask import request
from gevent.event import AsyncResult

from service.classifier import Classifier
from service.errors import InvalidRequest, Overloaded
from service.http.disconnects import ClientGone, Disconnects
from service.metrics import IN_FLIGHT
from service.reactor import GeventReactor
from service.request import Answer, Request


def whole_body() -> bytes:
    """The body of the present request.

    Raises:
        RequestEntityTooLarge: it is larger than the service allows.
        InvalidRequest: it ended before it was whole.
    """
    body = request.get_data(cache=False)
    if len(body) < (request.content_length or 0):  # gunicorn does not say so
        raise InvalidRequest(f"expected a body of {request.content_length} bytes, got {len(body)} and no more")
    # a chunked body is cut off at the limit without a word; asking for more is what raises RequestEntityTooLarge
    request.stream.read(1)
    return body


@contextmanager
def kept_back() -> Iterator[None]:
    """Lets a refusal out when it is due; see service/admission.py."""
    try:
        yield
    except Overloaded as refusal:
        if refusal.kept_back_s:
            gevent.sleep(refusal.kept_back_s)
        raise


def answer_of(classifier: Classifier, asked: Request) -> Answer:
    """The answer to a request. Its end is certain: every call has a deadline.

    Args:
        classifier: who answers.
        asked: the request.

    Raises:
        GraftError: it was refused at once (see Classifier.submit).
        ClientGone: the client has hung up; nothing more is done for it.
    """
    result: Any = AsyncResult()  # of an Answer; gevent's own type is loose
    with kept_back():
        call = classifier.submit(asked, result.set)
    if result.ready():
        answer: Answer = result.get()
        return answer

    def gone() -> None:
        call.cancel()
        result.set(None)

    descriptor: int = request.environ["gunicorn.socket"].fileno()
    disconnects = _disconnects()
    disconnects.watch(descriptor, gone)
    try:
        with IN_FLIGHT.track_inprogress():
            found: Answer | None = result.get()
    finally:
        disconnects.forget(descriptor)
    if found is None:
        raise ClientGone
    return found


@cache
def _disconnects() -> Disconnects:
    """This process's, on its only event loop."""
    return Disconnects(GeventReactor())
