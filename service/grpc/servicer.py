"""graft.v1.ImageClassifier: protocol messages to classifier requests and back."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Final

import grpc

from protos.classifier_pb2 import (
    BULK,
    ClassifyRequest,
    ClassifyResponse,
    ClassifyStreamRequest,
    GetModelRequest,
    ListModelsRequest,
    ListModelsResponse,
    Model,
    Priority,
)
from protos.classifier_pb2_grpc import ImageClassifierServicer
from service import errors, tensors
from service.classifier import Classifier
from service.exchange import note_failure, observe_answer, present
from service.grpc.call import Aborted, Call
from service.grpc.models import get_model, list_models
from service.grpc.stream import Stream
from service.grpc.waiting import answer_of, read_terms
from service.metrics import count_request
from service.request import Request, check_count
from service.settings import Settings
from service.terms import Terms

STATUS: Final[dict[type[errors.GraftError], grpc.StatusCode]] = {
    **{kind: grpc.StatusCode[name] for kind, name in tensors.STATUS.items()},
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""The gRPC status of every error that a client can meet."""

_DEFAULT_TOP_K: Final = 5
_PRIORITIES: Final = frozenset(Priority.values())
_log = logging.getLogger("graft.grpc")


class Servicer(ImageClassifierServicer):
    """Answers protos/classifier.proto. An error's code travels beside the status, as metadata `graft-error-code`."""

    def __init__(self, classifier: Classifier, settings: Settings) -> None:
        self._classifier = classifier
        self._settings = settings
        self._streams: set[Stream] = set()
        self._ending = False

    async def Classify(  # noqa: N802 - the protocol's name
        self, request: ClassifyRequest, context: Call
    ) -> ClassifyResponse:
        """See protos/classifier.proto."""
        try:
            answer = await self._answer(request, context)
        except errors.GraftError as error:
            raise aborted(error) from error
        if all(result.HasField("error") for result in answer.results):
            first = answer.results[0].error
            raise aborted(errors.BY_CODE[first.code](first.detail))
        count_request("grpc", "OK")
        return answer

    def admit(self, call: Call) -> None:
        """Whether a call of Classify might be answered in time, before its message is read.

        Raises:
            Overloaded: by its deadline, nothing could.
        """
        left_s = min(self._settings.request_timeout_s, call.left_s)
        if left_s > 0:  # else there is a better word for it
            self._classifier.admit_deadline(left_s)

    async def ClassifyStream(  # noqa: N802 - the protocol's name
        self,
        request_iterator: AsyncIterator[ClassifyStreamRequest],  # noqa: ARG002 - it has no flow control of its own
        context: Call,
    ) -> None:
        """See protos/classifier.proto. Every request counts as one in the metrics; the stream itself does not."""

        async def answer(request: ClassifyRequest) -> ClassifyResponse:
            whole = present()
            exchange = whole.part() if whole else None
            status = "CANCELLED"
            try:
                response = await self._answer(request, context)
                status = "OK"
                return response
            except errors.GraftError as error:
                status = STATUS[type(error)].name
                note_failure(error.code)
                raise
            finally:
                count_request("grpc", status)
                if exchange:
                    exchange.end(status, failed=status != "OK")

        stream = Stream(context, answer, self._settings.max_body_bytes)
        self._streams.add(stream)
        if self._ending:
            stream.end()
        try:
            await stream.run()
        except errors.GraftError as error:
            raise aborted(error) from error
        finally:
            self._streams.discard(stream)

    def end_streams(self) -> None:
        """Lets every stream answer what it has read and end; for a service that is about to end itself."""
        self._ending = True
        for stream in self._streams:
            stream.end()

    async def ListModels(  # noqa: N802 - the protocol's name
        self,
        request: ListModelsRequest,  # noqa: ARG002 - it has no fields
        context: Call,
    ) -> ListModelsResponse:
        """See protos/classifier.proto."""
        del context
        count_request("grpc", "OK")
        return list_models(self._classifier.routes)

    async def GetModel(  # noqa: N802 - the protocol's name
        self, request: GetModelRequest, context: Call
    ) -> Model:
        """See protos/classifier.proto."""
        del context
        try:
            model = await asyncio.to_thread(get_model, self._classifier.routes, self._settings.models, request)
        except errors.GraftError as error:
            raise aborted(error) from error
        count_request("grpc", "OK")
        return model

    async def _answer(self, request: ClassifyRequest, context: Call) -> ClassifyResponse:
        """Answers a request.

        Raises:
            GraftError: it failed as a whole. Failed images are errors in their results.
        """
        started = time.monotonic()
        try:
            check_count(len(request.images), self._settings.max_images)
            asked = _request(request, read_terms(context, self._settings))
            answer = await answer_of(self._classifier, asked)
        except errors.GraftError:
            raise
        except Exception as error:
            _log.exception("unforeseen error in Classify")
            raise errors.InternalError("an unforeseen error; the service's log knows more") from error
        observe_answer("grpc", time.monotonic() - started, answer)
        for result, image in zip(answer.results, request.images, strict=True):
            if image.filename:
                result.filename = image.filename
        return ClassifyResponse(model=answer.model, version=answer.version, results=answer.results)


def _request(request: ClassifyRequest, terms: Terms) -> Request:
    if request.version < 0:
        raise errors.InvalidRequest(f"expected version to be 0 (the live one) or larger, got {request.version}")
    if request.top_k < 0:
        raise errors.InvalidRequest(f"expected top_k to be 0 ({_DEFAULT_TOP_K} labels) or larger, got {request.top_k}")
    if request.priority not in _PRIORITIES:
        raise errors.InvalidRequest(f"expected priority to be 0 (interactive) or 1 (bulk), got {request.priority}")
    return Request(
        [image.data for image in request.images],
        request.model,
        request.version,
        request.top_k or _DEFAULT_TOP_K,
        request.pixels_sha256,
        terms.left_s,
        request.label,
        terms.request_id,
        activation_map=request.activation_map,
        bulk=terms.bulk or request.priority == BULK,
    )


def aborted(error: errors.GraftError) -> Aborted:
    """What ends a call with an error, which it counts."""
    status = STATUS[type(error)]
    count_request("grpc", status.name)
    note_failure(error.code)
    metadata = [("graft-error-code", error.code)]
    if isinstance(error, errors.Overloaded):
        metadata.append(("grpc-retry-pushback-ms", str(max(1, round(error.retry_after_s * 1e3)))))
    return Aborted(status, error.detail, metadata)
