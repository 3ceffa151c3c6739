"""Every protocol is a translation onto one classifier: 200 images get the same scores through each."""

import base64
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from protos import open_inference_pb2 as oip
from protos import tensorflow_serving_pb2 as tfs
from protos.classifier_pb2 import ClassifyRequest, ClassifyResponse, Image
from service.image import ImageSpec, decode
from tests.conftest import CLASSES, SIDE_PX
from tests.pictures import encode, photo
from tests.running import Service

_AT_ONCE = 20
_IMAGES = [encode(photo(seed, (40 + seed, 90)), "PNG" if seed % 3 else "JPEG") for seed in range(200)]

Scores = list[list[float]]
Ask = Callable[[Sequence[bytes]], Scores]


class _Clients:
    """The protocols of one service: each takes image files and gives their scores in the order of the class names."""

    def __init__(self, service: Service, channel: grpc.Channel) -> None:
        self._service = service
        self._channel = channel

    def graft_http(self, images: Sequence[bytes]) -> Scores:
        answer = self._post("/classify", {"images": [{"b64": _b64(image)} for image in images]})
        return [_ordered([(one["label"], one["score"]) for one in result["top"]]) for result in answer["results"]]

    def graft_grpc(self, images: Sequence[bytes]) -> Scores:
        request = ClassifyRequest(images=[Image(data=image) for image in images])
        answer = self._call("graft.v1.ImageClassifier/Classify", request, ClassifyResponse)
        return [_ordered([(one.label, one.score) for one in result.top]) for result in answer.results]

    def tensorflow_predict_pixels(self, images: Sequence[bytes]) -> Scores:
        pixels = _pixels(images)
        tensor = tfs.TensorProto(dtype=tfs.DT_UINT8, tensor_content=pixels.tobytes())
        return self._predict("images", tensor, pixels.shape)

    def tensorflow_predict_floats(self, images: Sequence[bytes]) -> Scores:
        pixels = _pixels(images).astype("<f4")
        tensor = tfs.TensorProto(dtype=tfs.DT_FLOAT, tensor_content=pixels.tobytes())
        return self._predict("images", tensor, pixels.shape)

    def tensorflow_predict_files(self, images: Sequence[bytes]) -> Scores:
        tensor = tfs.TensorProto(dtype=tfs.DT_STRING, string_val=images)
        return self._predict("image_bytes", tensor, (len(images),), "serving_bytes")

    def tensorflow_classify(self, images: Sequence[bytes]) -> Scores:
        request = tfs.ClassificationRequest(model_spec={"name": "pets"})
        for image in images:
            example = request.input.example_list.examples.add()
            example.features.feature["image/encoded"].bytes_list.value.append(image)
        answer = self._call("tensorflow.serving.PredictionService/Classify", request, tfs.ClassificationResponse)
        return [_ordered([(one.label, one.score) for one in row.classes]) for row in answer.result.classifications]

    def tensorflow_rest_pixels(self, images: Sequence[bytes]) -> Scores:
        scores: Scores = self._post("/v1/models/pets:predict", {"instances": _pixels(images).tolist()})["predictions"]
        return scores

    def tensorflow_rest_files(self, images: Sequence[bytes]) -> Scores:
        inputs = [{"b64": _b64(image)} for image in images]
        answer = self._post("/v1/models/pets:predict", {"signature_name": "serving_bytes", "inputs": inputs})
        scores: Scores = answer["outputs"]["scores"]
        return scores

    def tensorflow_rest_classify(self, images: Sequence[bytes]) -> Scores:
        examples = [{"image/encoded": {"b64": _b64(image)}} for image in images]
        return [_ordered(row) for row in self._post("/v1/models/pets:classify", {"examples": examples})["results"]]

    def open_inference_grpc_pixels(self, images: Sequence[bytes]) -> Scores:
        pixels = _pixels(images)
        return self._infer("images", "UINT8", pixels.shape, pixels.tobytes())

    def open_inference_grpc_files(self, images: Sequence[bytes]) -> Scores:
        raw = b"".join(struct.pack("<I", len(image)) + image for image in images)
        return self._infer("image_bytes", "BYTES", (len(images),), raw)

    def open_inference_rest_files(self, images: Sequence[bytes]) -> Scores:
        data = [_b64(image) for image in images]
        tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [len(images)], "data": data}
        answer = self._post("/v2/models/pets/infer", {"inputs": [tensor], "outputs": [{"name": "scores"}]})
        scores: Scores = np.array(answer["outputs"][0]["data"]).reshape(-1, len(CLASSES)).tolist()
        return scores

    def _predict(self, name: str, tensor: tfs.TensorProto, shape: Sequence[int], signature: str = "") -> Scores:
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
        request = tfs.PredictRequest(model_spec={"name": "pets", "signature_name": signature})
        request.inputs[name].CopyFrom(tensor)
        answer = self._call("tensorflow.serving.PredictionService/Predict", request, tfs.PredictResponse)
        return _rows(answer.outputs["scores"].float_val)

    def _infer(self, name: str, datatype: str, shape: Sequence[int], raw: bytes) -> Scores:
        request = oip.ModelInferRequest(model_name="pets", raw_input_contents=[raw])
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        answer = self._call("inference.GRPCInferenceService/ModelInfer", request, oip.ModelInferResponse)
        return _rows(np.frombuffer(answer.raw_output_contents[0], "<f4"))

    def _call(self, method: str, request: Any, response: Any) -> Any:
        return self._channel.unary_unary(f"/{method}", type(request).SerializeToString, response.FromString)(
            request, timeout=20
        )

    def _post(self, path: str, document: object) -> Any:
        answer = self._service.request(
            "POST", path, json.dumps(document).encode(), {"Content-Type": "application/json"}
        )
        assert answer.status == 200, answer.body
        return answer.json


def _b64(image: bytes) -> str:
    return base64.b64encode(image).decode()


def _pixels(images: Sequence[bytes]) -> np.ndarray:
    return np.stack([decode(image, ImageSpec(SIDE_PX)) for image in images])


def _ordered(pairs: Sequence[Sequence[Any]]) -> list[float]:
    scores: dict[str, float] = dict(pairs)
    return [scores[name] for name in CLASSES]


def _rows(scores: Any) -> Scores:
    rows: Scores = np.array(scores).reshape(-1, len(CLASSES)).tolist()
    return rows


@pytest.fixture(scope="module")
def clients(service: Service) -> Iterator[_Clients]:
    """Of the shared service."""
    with grpc.insecure_channel(service.grpc) as channel:
        yield _Clients(service, channel)


def _all(ask: Ask) -> np.ndarray:
    rows = [row for start in range(0, len(_IMAGES), _AT_ONCE) for row in ask(_IMAGES[start : start + _AT_ONCE])]
    return np.array(rows)


@pytest.fixture(scope="module")
def expected(clients: _Clients) -> np.ndarray:
    """What our own gRPC interface gives."""
    return _all(clients.graft_grpc)


_PROTOCOLS = sorted(name for name in vars(_Clients) if not name.startswith("_") and name != "graft_grpc")


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_the_same_scores_through_every_protocol(clients: _Clients, expected: np.ndarray, protocol: str) -> None:
    """200 images: the same label, and every score within 1e-5."""
    scores = _all(getattr(clients, protocol))
    assert scores.shape == (200, len(CLASSES))
    assert (scores.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert np.abs(scores - expected).max() <= 1e-5


def test_the_images_tell_protocols_apart(expected: np.ndarray) -> None:
    """No two images score alike and every label occurs, so that a mix-up would be seen."""
    assert len(np.unique(expected.round(6), axis=0)) == len(expected)
    assert set(expected.argmax(axis=1)) == set(range(len(CLASSES)))
