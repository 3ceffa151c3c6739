"""How a gRPC call waits for the classifier: until the answer, its deadline, or the client's going away."""

import asyncio
import time
from typing import Any, Final

import grpc

from service.classifier import Classifier
from service.errors import DeadlineExceeded, Overloaded
from service.exchange import is_request_id
from service.metrics import IN_FLIGHT
from service.request import Answer, Request
from service.settings import Settings
from service.terms import Terms, is_bulk

_REQUEST_ID: Final = "x-request-id"
_PRIORITY: Final = "x-request-priority"
_OF_TERMS: Final = (_REQUEST_ID, _PRIORITY)


def read_terms(context: grpc.aio.ServicerContext[Any, Any], settings: Settings) -> Terms:
    """The terms of a call: its deadline, which can only shorten ours, and what its metadata say.

    Raises:
        DeadlineExceeded: it has passed.
        InvalidRequest: the metadata cannot be understood.
    """
    remaining_s = context.time_remaining()
    if remaining_s is None:
        remaining_s = settings.request_timeout_s
    if remaining_s <= 0:
        raise DeadlineExceeded("the deadline passed before the request was read")
    deadline = time.monotonic() + min(settings.request_timeout_s, remaining_s)
    given = {key: value for key, value in context.invocation_metadata() or () if key in _OF_TERMS}
    named = str(given.get(_REQUEST_ID, ""))
    return Terms(deadline, named if is_request_id(named) else "", is_bulk(str(given.get(_PRIORITY, ""))))


def metadata(context: grpc.aio.ServicerContext[Any, Any], name: str) -> str:
    """What the caller sent beside the request under a name, in small letters; empty for nothing."""
    return next((str(value) for key, value in context.invocation_metadata() or () if key == name), "")


async def answer_of(classifier: Classifier, asked: Request) -> Answer:
    """The answer to a request.

    Raises:
        GraftError: it was refused at once (see Classifier.submit).
    """
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    try:
        call = classifier.submit(asked, lambda answer: None if future.done() else future.set_result(answer))
    except Overloaded as refusal:
        await asyncio.sleep(refusal.kept_back_s)
        raise
    with IN_FLIGHT.track_inprogress():
        try:
            return await future
        except asyncio.CancelledError:  # the client has gone away
            call.cancel()
            raise
