"""How a gRPC call waits for the classifier: until the answer, its deadline, or the client's going away."""

import asyncio
from typing import Any

import grpc

from service.classifier import Answer, Classifier, Request
from service.errors import DeadlineExceeded
from service.exchange import is_request_id
from service.metrics import IN_FLIGHT
from service.settings import Settings


def remaining_s(context: grpc.aio.ServicerContext[Any, Any], settings: Settings) -> float:
    """Seconds until nobody wants the answer any more: the caller's deadline, which can only shorten ours.

    Raises:
        DeadlineExceeded: it has passed.
    """
    remaining = context.time_remaining()
    if remaining is None:
        return settings.request_timeout_s
    if remaining <= 0:
        raise DeadlineExceeded("the deadline passed before the request was read")
    return min(settings.request_timeout_s, remaining)


def request_id(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """What the caller calls this request; empty for nothing, or for what cannot be a name."""
    given = next((str(value) for key, value in context.invocation_metadata() or () if key == "x-request-id"), "")
    return given if is_request_id(given) else ""


async def answer_of(classifier: Classifier, asked: Request) -> Answer:
    """The answer to a request.

    Raises:
        GraftError: it was refused at once (see Classifier.submit).
    """
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    with IN_FLIGHT.track_inprogress():
        call = classifier.submit(asked, lambda answer: None if future.done() else future.set_result(answer))
        try:
            return await future
        except asyncio.CancelledError:  # the client has gone away
            call.cancel()
            raise
