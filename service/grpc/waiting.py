"""How a gRPC call waits for the classifier: until the answer, its deadline, or the client's going away."""

import asyncio
import time

from service.classifier import Classifier
from service.errors import DeadlineExceeded, Overloaded
from service.exchange import is_request_id
from service.grpc.call import Call
from service.grpc.work import Promise
from service.metrics import IN_FLIGHT
from service.request import Answer, Request
from service.settings import Settings
from service.terms import Terms, is_bulk


def read_terms(call: Call, settings: Settings) -> Terms:
    """The terms of a call: its deadline, which can only shorten ours, and what its metadata say.

    Raises:
        DeadlineExceeded: it has passed.
        InvalidRequest: the metadata cannot be understood.
    """
    left_s = min(settings.request_timeout_s, call.left_s)
    if left_s <= 0:
        raise DeadlineExceeded("the deadline passed before the request was read")
    deadline = time.monotonic() + left_s
    named = call.metadata.get("x-request-id", "")
    request_id = named if named and is_request_id(named) else ""
    return Terms(deadline, request_id, is_bulk(call.metadata.get("x-request-priority", "")))


async def answer_of(classifier: Classifier, asked: Request) -> Answer:
    """The answer to a request.

    Raises:
        GraftError: it was refused at once (see Classifier.submit).
    """
    promise: Promise[Answer] = Promise()
    try:
        call = classifier.submit(asked, promise.keep)
    except Overloaded as refusal:
        if refusal.kept_back_s:
            await asyncio.sleep(refusal.kept_back_s)
        raise
    IN_FLIGHT.inc()
    try:
        return await promise
    except asyncio.CancelledError:  # the client has gone away
        call.cancel()
        raise
    finally:
        IN_FLIGHT.dec()
