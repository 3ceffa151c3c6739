"""TensorFlow Serving's PredictionService and ModelService over gRPC, by `service/tensorflow_serving.py`."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from protos import tensorflow_serving_pb2 as tfs
from service.classifier import Answer, Classifier, Request
from service.exchange import observe_answer
from service.grpc.foreign import Context, Method, service
from service.grpc.waiting import answer_of, read_terms
from service.settings import Settings
from service.tensorflow_serving import TensorFlowServing

PREDICTION_SERVICE: Final = "tensorflow.serving.PredictionService"
MODEL_SERVICE: Final = "tensorflow.serving.ModelService"

_Response = TypeVar("_Response", bound=Message)


def services(classifier: Classifier, settings: Settings) -> Sequence[grpc.GenericRpcHandler]:
    """Both services on a classifier whose reactor is this process's asyncio loop."""
    face = TensorFlowServing(classifier, settings.max_images)

    async def run(asked: Request) -> Answer:
        started = time.monotonic()
        answer = await answer_of(classifier, asked)
        observe_answer("grpc", time.monotonic() - started, answer)
        return answer

    async def predict(request: tfs.PredictRequest, context: Context) -> tfs.PredictResponse:
        answer = await run(face.read_predict(request, read_terms(context, settings)))
        return face.write_predict(request, answer)

    async def classify(request: tfs.ClassificationRequest, context: Context) -> tfs.ClassificationResponse:
        asked = face.read_classify(request, read_terms(context, settings))
        return face.write_classify(await run(asked))

    prediction: dict[str, Method] = {
        "Predict": (tfs.PredictRequest, predict),
        "Classify": (tfs.ClassificationRequest, classify),
        "GetModelMetadata": (tfs.GetModelMetadataRequest, _at_once(face.metadata)),
    }
    model: dict[str, Method] = {
        "GetModelStatus": (tfs.GetModelStatusRequest, _at_once(face.status)),
        "HandleReloadConfigRequest": (tfs.ReloadConfigRequest, _at_once(face.reload)),
    }
    return [service(PREDICTION_SERVICE, prediction), service(MODEL_SERVICE, model)]


def _at_once(answer: Callable[[Any], _Response]) -> Callable[[Any, Context], Any]:
    """A method that waits for nothing."""

    async def call(request: Message, _: Context) -> _Response:
        return answer(request)

    return call
