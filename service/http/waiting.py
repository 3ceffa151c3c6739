"""How an HTTP request waits: for its own body, and for the classifier's answer. Other requests go on meanwhile."""

from typing import Any

import gevent
from flask import request
from gevent.event import AsyncResult

from service.classifier import Answer, Classifier, Request
from service.errors import RequestTimeout
from service.metrics import IN_FLIGHT


def within(seconds: float) -> gevent.Timeout:
    """A context in which the request is read; a client that trickles must not hold us for ever.

    Raises:
        RequestTimeout: on leaving it late.
    """
    return gevent.Timeout(seconds, RequestTimeout(f"expected the whole request within {seconds:g} s"))


def whole_body() -> bytes:
    """The body of the present request.

    Raises:
        RequestEntityTooLarge: it is larger than the service allows.
    """
    body = request.get_data(cache=False)
    # a chunked body is cut off at the limit without a word; asking for more is what raises RequestEntityTooLarge
    request.stream.read(1)
    return body


def answer_of(classifier: Classifier, asked: Request) -> Answer:
    """The answer to a request. Its end is certain: every call has a deadline.

    Raises:
        GraftError: it was refused at once (see Classifier.submit).
    """
    result: Any = AsyncResult()  # of an Answer; gevent's own type is loose
    classifier.submit(asked, result.set)
    with IN_FLIGHT.track_inprogress():
        answer: Answer = result.get()
    return answer
