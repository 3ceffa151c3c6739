"""TensorFlow Serving's PredictionService and ModelService over gRPC, by `service/tensorflow_serving.py`."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from protos import tensorflow_serving_pb2 as tfs
from service import admin
from service.classifier import Classifier
from service.exchange import observe_answer
from service.grpc.call import Call
from service.grpc.foreign import handlers
from service.grpc.waiting import answer_of, read_terms
from service.reload import read_reload
from service.request import Answer, Request
from service.settings import Settings
from service.tensorflow_serving import TensorFlowServing
from service.tensors import Refusal

PREDICTION_SERVICE: Final = "tensorflow.serving.PredictionService"
MODEL_SERVICE: Final = "tensorflow.serving.ModelService"

_Response = TypeVar("_Response", bound=Message)


def services(classifier: Classifier, settings: Settings) -> Mapping[str, Mapping[str, Any]]:
    """The handlers of both services, on a classifier whose reactor is this process's asyncio loop."""
    face = TensorFlowServing(classifier, settings.max_images, settings.max_body_bytes)

    async def run(asked: Request) -> Answer:
        started = time.monotonic()
        answer = await answer_of(classifier, asked)
        observe_answer("grpc", time.monotonic() - started, answer)
        return answer

    async def predict(request: tfs.PredictRequest, call: Call) -> tfs.PredictResponse:
        answer = await run(face.read_predict(request, read_terms(call, settings)))
        return face.write_predict(request, answer)

    async def classify(request: tfs.ClassificationRequest, call: Call) -> tfs.ClassificationResponse:
        asked = face.read_classify(request, read_terms(call, settings))
        return face.write_classify(await run(asked))

    async def reload(request: tfs.ReloadConfigRequest, call: Call) -> tfs.ReloadConfigResponse:
        wishes = read_reload(request, classifier.routes)
        if wishes:
            if not admin.is_possible(settings):
                raise Refusal(
                    "PERMISSION_DENIED", "versions and labels are changed over the network with --admin-token-file only"
                )
            admin.authenticate(call.metadata.get("authorization", ""), settings)
        # in a thread: a disk may take its time, and this front has one thread for everybody
        await asyncio.to_thread(admin.change_all, classifier.routes, settings, wishes)
        return tfs.ReloadConfigResponse(status={"error_code": tfs.OK})

    return {
        PREDICTION_SERVICE: handlers(
            {
                "Predict": (tfs.PredictRequest, predict),
                "Classify": (tfs.ClassificationRequest, classify),
                "GetModelMetadata": (tfs.GetModelMetadataRequest, _at_once(face.metadata)),
            }
        ),
        MODEL_SERVICE: handlers(
            {
                "GetModelStatus": (tfs.GetModelStatusRequest, _at_once(face.status)),
                "HandleReloadConfigRequest": (tfs.ReloadConfigRequest, reload),
            }
        ),
    }


def _at_once(answer: Callable[[Any], _Response]) -> Callable[[Any, Call], Any]:
    """A method that waits for nothing."""

    async def run(request: Message, _: Call) -> _Response:
        return answer(request)

    return run
