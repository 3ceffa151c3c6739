"""graft.v1.ImageClassifier: protocol messages to classifier requests and back."""

import asyncio
import logging
import time
from typing import Final, NoReturn

import grpc

from protos.classifier_pb2 import ClassifyRequest, ClassifyResponse
from protos.classifier_pb2_grpc import ImageClassifierServicer
from service import errors
from service.classifier import Answer, Classifier, Request
from service.metrics import IN_FLIGHT, REQUESTS, observe_answer
from service.settings import Settings

STATUS: Final[dict[type[errors.GraftError], grpc.StatusCode]] = {
    errors.EmptyImage: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidBase64: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnsupportedFormat: grpc.StatusCode.INVALID_ARGUMENT,
    errors.CorruptImage: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ImageTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    errors.PoisonImage: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnsupportedMedia: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RequestTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.RequestTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}
"""The gRPC status of every error that a client can meet."""

_DEFAULT_TOP_K: Final = 5
_log = logging.getLogger("graft.grpc")

_Context = grpc.aio.ServicerContext[ClassifyRequest, ClassifyResponse]


class Servicer(ImageClassifierServicer):
    """Answers Classify. The error's code travels beside the status, as metadata `graft-error-code`."""

    def __init__(self, classifier: Classifier, settings: Settings) -> None:
        self._classifier = classifier
        self._settings = settings

    async def Classify(  # noqa: N802 - the protocol's name
        self, request: ClassifyRequest, context: _Context
    ) -> ClassifyResponse:
        """See protos/classifier.proto."""
        started = time.monotonic()
        try:
            asked = _request(request, self._timeout_s(context), _request_id(context))
            with IN_FLIGHT.track_inprogress():
                answer = await self._wait(asked)
        except errors.GraftError as error:
            await _abort(context, error)
        except Exception:  # noqa: BLE001 - the last resort; logged with its trace
            _log.exception("unforeseen error in Classify")
            await _abort(context, errors.InternalError("an unforeseen error; the service's log knows more"))
        observe_answer("grpc", time.monotonic() - started, answer)
        if all(result.HasField("error") for result in answer.results):
            first = answer.results[0].error
            await _abort(context, errors.BY_CODE[first.code](first.detail))
        for result, image in zip(answer.results, request.images, strict=True):
            result.filename = image.filename
        REQUESTS.labels("grpc", "OK").inc()
        return ClassifyResponse(model=answer.model, version=answer.version, results=answer.results)

    def _timeout_s(self, context: _Context) -> float:
        remaining = context.time_remaining()
        return min(self._settings.request_timeout_s, remaining or self._settings.request_timeout_s)

    async def _wait(self, asked: Request) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        call = self._classifier.submit(asked, lambda answer: None if future.done() else future.set_result(answer))
        try:
            return await future
        except asyncio.CancelledError:  # the client has gone away
            call.cancel()
            raise


def _request(request: ClassifyRequest, timeout_s: float, request_id: str) -> Request:
    if request.version < 0:
        raise errors.InvalidRequest(f"expected version to be 0 (the live one) or larger, got {request.version}")
    if request.top_k < 0:
        raise errors.InvalidRequest(f"expected top_k to be 0 ({_DEFAULT_TOP_K} labels) or larger, got {request.top_k}")
    return Request(
        [image.data for image in request.images],
        request.model,
        request.version,
        request.top_k or _DEFAULT_TOP_K,
        request.pixels_sha256,
        timeout_s,
        request.label,
        request_id,
    )


def _request_id(context: _Context) -> str:
    return next((str(value) for key, value in context.invocation_metadata() or () if key == "x-request-id"), "")


async def _abort(context: _Context, error: errors.GraftError) -> NoReturn:
    status = STATUS[type(error)]
    REQUESTS.labels("grpc", status.name).inc()
    await context.abort(status, error.detail, (("graft-error-code", error.code),))
    raise AssertionError("abort always raises. This is a bug.")
