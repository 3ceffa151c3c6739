"""The Open Inference Protocol's GRPCInferenceService, by `service/open_inference.py`."""

import time
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.message import Message

from protos import open_inference_pb2 as oip
from service.classifier import Classifier
from service.exchange import observe_answer
from service.grpc.call import Call
from service.grpc.foreign import Answer, handlers
from service.grpc.waiting import answer_of, read_terms
from service.open_inference import EXTENSIONS, PLATFORM, VERSION, OpenInference
from service.readiness import Readiness
from service.settings import Settings

SERVICE: Final = "inference.GRPCInferenceService"


def methods(classifier: Classifier, settings: Settings, readiness: Readiness) -> Mapping[str, Any]:
    """The service's handlers, on a classifier whose reactor is this process's asyncio loop.

    Args:
        classifier: what answers.
        settings: the limits.
        readiness: whether every live model answers.
    """
    face = OpenInference(classifier, settings.max_images)

    async def live(_: oip.ServerLiveRequest, __: Call) -> oip.ServerLiveResponse:
        return oip.ServerLiveResponse(live=True)

    async def ready(_: oip.ServerReadyRequest, __: Call) -> oip.ServerReadyResponse:
        return oip.ServerReadyResponse(ready=readiness.ready)

    async def model_ready(request: oip.ModelReadyRequest, _: Call) -> oip.ModelReadyResponse:
        return oip.ModelReadyResponse(ready=face.ready(request.name, request.version))

    async def metadata(_: oip.ServerMetadataRequest, __: Call) -> oip.ServerMetadataResponse:
        return oip.ServerMetadataResponse(name=PLATFORM, version=VERSION, extensions=EXTENSIONS)

    async def model_metadata(request: oip.ModelMetadataRequest, _: Call) -> oip.ModelMetadataResponse:
        return face.metadata(request.name, request.version)

    async def infer(request: oip.ModelInferRequest, call: Call) -> oip.ModelInferResponse:
        started = time.monotonic()
        answer = await answer_of(classifier, face.read_infer(request, read_terms(call, settings)))
        observe_answer("grpc", time.monotonic() - started, answer)
        return face.write_infer(request, answer)

    answers: Mapping[str, tuple[type[Message], Answer]] = {
        "ServerLive": (oip.ServerLiveRequest, live),
        "ServerReady": (oip.ServerReadyRequest, ready),
        "ModelReady": (oip.ModelReadyRequest, model_ready),
        "ServerMetadata": (oip.ServerMetadataRequest, metadata),
        "ModelMetadata": (oip.ModelMetadataRequest, model_metadata),
        "ModelInfer": (oip.ModelInferRequest, infer),
    }
    return handlers(answers)
