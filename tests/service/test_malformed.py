"""What no protocol may trip over, asked of each: every defect gets that protocol's own error, and nobody dies."""

import base64
import json
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest

from protos import open_inference_pb2 as oip
from protos import tensorflow_serving_pb2 as tfs
from protos.classifier_pb2 import ClassifyRequest, ClassifyResponse
from tests.conftest import SIDE_PX
from tests.pictures import plain
from tests.running import LEAKS, Service

_DEADLINE_S = 20.0
_RED = plain("red")
_SHAPE = [1, SIDE_PX, SIDE_PX, 3]
_PIXELS = bytes(SIDE_PX * SIDE_PX * 3)
_GIANT = 1 << 40
_NOT_UTF8 = b"\xff\xfe"
_TOO_LONG = 99_999


class _Grpc:
    """Calls one method with messages, or with bytes that are none."""

    def __init__(self, method: str, response: Any) -> None:
        self.method = method
        self.response = response

    def ask(self, service: Service, message: Any) -> str:
        """The status, with the detail behind it."""
        sent = message if isinstance(message, bytes) else message.SerializeToString()
        with grpc.insecure_channel(service.grpc) as channel:
            call = channel.unary_unary(f"/{self.method}", None, self.response.FromString)
            try:
                call(sent, timeout=_DEADLINE_S)
            except grpc.RpcError as error:
                return f"{error.code().name} {error.details()}"
            return "OK"


class _Http:
    """Posts to one path. Where `error` is "code", errors are problem documents; else `{"error": "..."}`."""

    def __init__(self, path: str, error: str) -> None:
        self.path = path
        self.error = error

    def ask(self, service: Service, asked: Any, *, ends: bool = False) -> str:
        """The status, with the error behind it; None where there is none. `ends` says that nothing more will come."""
        path, body, length = asked if isinstance(asked, tuple) else (self.path, asked, None)
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
        host, _, port = service.http.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=_DEADLINE_S) as connection:
            connection.sendall(head.encode() + body)
            if ends or length == _TOO_LONG:
                connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        status = head.split(b" ")[1].decode()
        document = json.loads(body) if b"json" in head else {}
        return f"{status} {document.get(self.error)}"


def _tensor(dtype: int, shape: list[int], **values: object) -> tfs.TensorProto:
    tensor = tfs.TensorProto(dtype=dtype, **values)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def _predict(tensor: tfs.TensorProto | None = None, asked: str = "images", **spec: object) -> tfs.PredictRequest:
    request = tfs.PredictRequest(model_spec={"name": "pets"} | spec)
    if asked:
        request.inputs[asked].CopyFrom(tensor or _tensor(tfs.DT_UINT8, _SHAPE, tensor_content=_PIXELS))
    return request


def _examples(
    value: tfs.Feature | None = None, feature: str = "image/encoded", **spec: object
) -> tfs.ClassificationRequest:
    request = tfs.ClassificationRequest(model_spec={"name": "pets"} | spec)
    request.input.example_list.examples.add().features.feature[feature].CopyFrom(
        value or tfs.Feature(bytes_list={"value": [_RED]})
    )
    return request


def _infer(datatype: str = "UINT8", shape: Sequence[int] = _SHAPE, **fields: Any) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(**{"model_name": "pets", "raw_input_contents": [_PIXELS]} | fields)
    request.inputs.add(name="images", datatype=datatype, shape=shape)
    return request


_RAW_FILES = oip.ModelInferRequest(model_name="pets", raw_input_contents=[bytes(1_000_000)])
_RAW_FILES.inputs.add(name="image_bytes", datatype="BYTES", shape=[1])


def _b64(image: bytes = _RED) -> dict[str, str]:
    return {"b64": base64.b64encode(image).decode()}


def _v2(**fields: object) -> dict[str, Any]:
    return {"inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [_b64()["b64"]]} | fields]}


def _broken(message: Any) -> bytes:
    """The message with a text in it that is no UTF-8: the model's name."""
    sent: bytes = message.SerializeToString()
    assert b"pets" in sent
    return sent.replace(b"pets", _NOT_UTF8 + b"ts")


_CLASSIFY = _Http("/classify", "code")
_GRPC = _Grpc("graft.v1.ImageClassifier/Classify", ClassifyResponse)
_TF_PREDICT = _Grpc("tensorflow.serving.PredictionService/Predict", tfs.PredictResponse)
_TF_CLASSIFY = _Grpc("tensorflow.serving.PredictionService/Classify", tfs.ClassificationResponse)
_REST_PREDICT = _Http("/v1/models/pets:predict", "error")
_REST_CLASSIFY = _Http("/v1/models/pets:classify", "error")
_INFER = _Grpc("inference.GRPCInferenceService/ModelInfer", oip.ModelInferResponse)
_REST_INFER = _Http("/v2/models/pets/infer", "error")

_FILE = {"images": [_b64()]}
_ASKED = ClassifyRequest(model="pets", images=[{"data": _RED}])
_ROWS = {"signature_name": "serving_bytes", "instances": [_b64()]}
_EXAMPLES = {"examples": [{"image/encoded": _b64()}]}

_GOOD: dict[str, tuple[_Grpc | _Http, Any]] = {
    "graft http": (_CLASSIFY, _FILE),
    "graft grpc": (_GRPC, _ASKED),
    "tensorflow grpc predict": (_TF_PREDICT, _predict()),
    "tensorflow grpc classify": (_TF_CLASSIFY, _examples()),
    "tensorflow rest predict": (_REST_PREDICT, _ROWS),
    "tensorflow rest classify": (_REST_CLASSIFY, _EXAMPLES),
    "open inference grpc": (_INFER, _infer()),
    "open inference rest": (_REST_INFER, _v2()),
}

_NO_MESSAGE = "INVALID_ARGUMENT expected the message that this method takes, got "

_LONGER = b"\x0a\xff\xff\xff\x7f"
"""A field that is longer than the message."""

_NONE = "400 None"
"""What gunicorn says of what is no HTTP, without JSON."""


def _lengths(
    path: str, document: object, code: str, too_long: str = "expected a body of 99999 bytes, got "
) -> dict[str, tuple[Any, str]]:
    """A body that is longer, shorter or much shorter than its Content-Length, or of no length."""
    return {
        "content length too short": ((path, document, 9), f"400 {code}"),
        "content length too long": ((path, document, _TOO_LONG), f"400 {too_long}"),
        "content length above the limit": ((path, document, _GIANT), "413 "),
        "content length that is none": ((path, document, "many"), _NONE),
    }


# What is sent, and how the answer begins. Graft's own protocols have no tensors, so no wrong shape or signature.
_WRONG: dict[str, dict[str, tuple[Any, str]]] = {
    "graft http": {
        "wrong dtype": ({"images": [{"b64": 7}]}, "400 INVALID_REQUEST"),
        "wrong shape": ({"images": {"b64": "AAAA"}}, "400 INVALID_REQUEST"),
        "missing input": ({}, "400 INVALID_REQUEST"),
        "giant": ({"images": [_b64(bytes(500_001))]}, "413 None"),
        "too many": ({"images": [_b64()] * 21}, "400 INVALID_REQUEST"),
        "unknown model": (("/classify?model=cats", _FILE, None), "404 MODEL_NOT_FOUND"),
        "unknown version": (("/classify?version=7", _FILE, None), "404 MODEL_NOT_FOUND"),
        "unknown label": (("/classify?label=best", _FILE, None), "404 MODEL_NOT_FOUND"),
        "invalid utf-8": (b'{"images": "\xff\xfe"}', "400 INVALID_REQUEST"),
        **_lengths("/classify", _FILE, "INVALID_REQUEST", "INVALID_REQUEST"),
    },
    "graft grpc": {
        "wrong dtype": (b"\x0a\x04pets\x12\x02\x08\x01", "INVALID_ARGUMENT expected 1 to 20 images"),
        "missing input": (ClassifyRequest(model="pets"), "INVALID_ARGUMENT expected 1 to 20 images"),
        "giant": (ClassifyRequest(images=[{"data": bytes(500_001)}]), "INVALID_ARGUMENT expected at most 500000"),
        "too many": (ClassifyRequest(images=[{"data": _RED}] * 21), "INVALID_ARGUMENT expected 1 to 20 images"),
        "unknown model": (ClassifyRequest(model="cats", images=[{"data": _RED}]), "NOT_FOUND no model 'cats'"),
        "unknown version": (ClassifyRequest(version=7, images=[{"data": _RED}]), "NOT_FOUND no version 7"),
        "unknown label": (ClassifyRequest(label="best", images=[{"data": _RED}]), "NOT_FOUND no label 'best'"),
        "invalid utf-8": (_broken(_ASKED), _NO_MESSAGE),
        "longer than it says": (_LONGER, _NO_MESSAGE),
    },
    "tensorflow grpc predict": {
        "wrong dtype": (_predict(_tensor(tfs.DT_INT64, _SHAPE)), "INVALID_ARGUMENT Expects arg[0] to be uint8"),
        "wrong shape": (_predict(_tensor(tfs.DT_UINT8, [1, 64, 64, 3])), "INVALID_ARGUMENT expected a tensor of shape"),
        "wrong signature": (_predict(signature_name="guess"), "FAILED_PRECONDITION Serving signature key"),
        "missing input": (_predict(asked=""), "INVALID_ARGUMENT input size does not match signature"),
        "giant": (_predict(_tensor(tfs.DT_UINT8, [_GIANT, *_SHAPE[1:]])), "INVALID_ARGUMENT expected 1 to 20 images"),
        "too many": (_predict(_tensor(tfs.DT_UINT8, [21, *_SHAPE[1:]])), "INVALID_ARGUMENT expected 1 to 20 images"),
        "unknown model": (_predict(name="cats"), "NOT_FOUND Servable not found"),
        "unknown version": (_predict(version={"value": 7}), "NOT_FOUND Servable not found"),
        "unknown label": (_predict(version_label="best"), "INVALID_ARGUMENT Unrecognized servable version label"),
        "invalid utf-8": (_broken(_predict()), _NO_MESSAGE),
        "longer than it says": (_LONGER, _NO_MESSAGE),
    },
    "tensorflow grpc classify": {
        "wrong dtype": (_examples(tfs.Feature(int64_list={"value": [1]})), "INVALID_ARGUMENT Name: <unknown>, Key"),
        "wrong shape": (_examples(tfs.Feature(bytes_list={"value": [_RED] * 2})), "INVALID_ARGUMENT Name: <unknown>"),
        "wrong signature": (_examples(signature_name="guess"), "INVALID_ARGUMENT No signature was found"),
        "missing input": (_examples(feature="x"), "INVALID_ARGUMENT Name: <unknown>, Index: 0. Feature: image/encoded"),
        "giant": (_examples(tfs.Feature(bytes_list={"value": [bytes(500_001)]})), "INVALID_ARGUMENT expected at most"),
        "too many": (tfs.ClassificationRequest.FromString(_examples().SerializeToString() * 21), "INVALID_ARGUMENT"),
        "unknown model": (_examples(name="cats"), "NOT_FOUND Servable not found"),
        "unknown version": (_examples(version={"value": 7}), "NOT_FOUND Servable not found"),
        "unknown label": (_examples(version_label="best"), "INVALID_ARGUMENT Unrecognized servable version label"),
        "invalid utf-8": (_broken(_examples()), _NO_MESSAGE),
        "longer than it says": (_LONGER, _NO_MESSAGE),
    },
    "tensorflow rest predict": {
        "wrong dtype": ({"instances": ["red"]}, "400 expected numbers of 0 to 255"),
        "wrong shape": ({"instances": [[[[1, 2, 3]]]]}, "400 expected a tensor of shape [-1,32,32,3], got [1,1,1,3]"),
        "wrong signature": ({"signature_name": "guess", "instances": [1]}, "400 Serving signature name: "),
        "missing input": ({}, "400 Missing 'inputs' or 'instances' key"),
        "giant": (b'{"instances": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "400 "),
        "too many": (_ROWS | {"instances": [_b64()] * 21}, "400 expected 1 to 20 images"),
        "unknown model": (("/v1/models/cats:predict", _ROWS, None), "404 Servable not found"),
        "unknown version": (("/v1/models/pets/versions/7:predict", _ROWS, None), "404 Servable not found"),
        "unknown label": (("/v1/models/pets/labels/best:predict", _ROWS, None), "400 Unrecognized servable version"),
        "invalid utf-8": (b'{"instances": ["\xff\xfe"]}', "400 JSON Parse error"),
        **_lengths(_REST_PREDICT.path, _ROWS, "JSON Parse error"),
    },
    "tensorflow rest classify": {
        "wrong dtype": ({"examples": [{"image/encoded": 1}]}, "400 Name: <unknown>, Key: image/encoded"),
        "wrong shape": ({"examples": [{"image/encoded": [_b64(), _b64()]}]}, "400 Name: <unknown>, Key"),
        "wrong signature": (_EXAMPLES | {"signature_name": "guess"}, "400 No signature was found"),
        "missing input": ({"examples": [{}]}, "400 Name: <unknown>, Index: 0. Feature: image/encoded"),
        "giant": ({"examples": [{"image/encoded": _b64(bytes(500_001))}]}, "400 expected at most 500000 bytes"),
        "too many": ({"examples": _EXAMPLES["examples"] * 21}, "400 expected 1 to 20 images"),
        "unknown model": (("/v1/models/cats:classify", _EXAMPLES, None), "404 Servable not found"),
        "unknown version": (("/v1/models/pets/versions/7:classify", _EXAMPLES, None), "404 Servable not found"),
        "unknown label": (("/v1/models/pets/labels/best:classify", _EXAMPLES, None), "400 Unrecognized servable"),
        "invalid utf-8": (b'{"examples": ["\xff\xfe"]}', "400 JSON Parse error"),
        **_lengths(_REST_CLASSIFY.path, _EXAMPLES, "JSON Parse error"),
    },
    "open inference grpc": {
        "wrong dtype": (_infer("INT64"), "INVALID_ARGUMENT inference input 'images' data-type is 'INT64'"),
        "wrong shape": (_infer(shape=[1, 64, 64, 3]), "INVALID_ARGUMENT unexpected shape for input 'images'"),
        "wrong signature": (_infer(outputs=[{"name": "logits"}]), "INVALID_ARGUMENT unexpected inference output"),
        "missing input": (oip.ModelInferRequest(model_name="pets"), "INVALID_ARGUMENT expected 1 input"),
        "giant": (_infer(shape=[_GIANT, *_SHAPE[1:]]), "INVALID_ARGUMENT expected 1 to 20 images"),
        "too many": (_infer(shape=[21, *_SHAPE[1:]]), "INVALID_ARGUMENT expected 1 to 20 images"),
        "too many files": (
            _RAW_FILES,
            "INVALID_ARGUMENT expected 1 strings for inference input 'image_bytes', got more",
        ),
        "unknown model": (_infer(model_name="cats"), "NOT_FOUND Request for unknown model: 'cats'"),
        "unknown version": (_infer(model_version="7"), "NOT_FOUND Request for unknown model: 'pets' version 7"),
        "unknown label": (_infer(model_version="best"), "NOT_FOUND Request for unknown model: 'pets' version best"),
        "invalid utf-8": (_broken(_infer()), _NO_MESSAGE),
        "longer than it says": (_LONGER, _NO_MESSAGE),
    },
    "open inference rest": {
        "wrong dtype": (_v2(datatype="UINT8", data=[1]), "400 inference input 'image_bytes' data-type is 'UINT8'"),
        "wrong shape": (_v2(shape=[1, 2]), "400 unexpected shape for input 'image_bytes'"),
        "wrong signature": (_v2() | {"outputs": [{"name": "logits"}]}, "400 unexpected inference output 'logits'"),
        "missing input": ({}, "400 expected 1 input"),
        "giant": (_v2(shape=[_GIANT]), "400 expected 1 to 20 images"),
        "too many": (_v2(shape=[21]), "400 expected 1 to 20 images"),
        "unknown model": (("/v2/models/cats/infer", _v2(), None), "404 Request for unknown model: 'cats'"),
        "unknown version": (("/v2/models/pets/versions/7/infer", _v2(), None), "404 Request for unknown model"),
        "unknown label": (("/v2/models/pets/versions/best/infer", _v2(), None), "404 Request for unknown model"),
        "invalid utf-8": (b'{"id": "\xff\xfe"}', "400 failed to parse the request JSON buffer"),
        **_lengths(_REST_INFER.path, _v2(), "failed to parse the request JSON buffer"),
    },
}

_DEFECTS = {"wrong dtype", "missing input", "giant", "too many", "unknown version", "unknown label", "invalid utf-8"}


def test_every_protocol_meets_every_defect() -> None:
    """The table has no holes but those that it explains."""
    assert _WRONG.keys() == _GOOD.keys()
    for protocol, defects in _WRONG.items():
        assert defects.keys() >= _DEFECTS, protocol
        if not protocol.startswith("graft"):
            assert {"wrong shape", "wrong signature"} <= defects.keys(), protocol
        over_http = isinstance(_GOOD[protocol][0], _Http)
        assert ("content length too long" in defects) == over_http, protocol


@pytest.fixture
def unharmed(service: Service, protocol: str) -> Iterator[None]:
    """After the test the same processes are alive, and the same protocol answers a good request."""
    before = service.engines(), service.fronts()
    yield
    assert (service.engines(), service.fronts()) == before
    face, good = _GOOD[protocol]
    assert face.ask(service, good) in {"OK", "200 None"}


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(("protocol", "defect"), [(name, one) for name, defects in _WRONG.items() for one in defects])
def test_a_malformed_request_gets_the_protocols_own_error(service: Service, protocol: str, defect: str) -> None:
    """Status and words are those of the protocol, and name nothing of the inside."""
    sent, expected = _WRONG[protocol][defect]
    answer = _GOOD[protocol][0].ask(service, sent)
    assert answer.startswith(expected), answer
    for leak in LEAKS:
        assert leak not in answer


@pytest.mark.parametrize("protocol", [name for name, (face, _) in _GOOD.items() if isinstance(face, _Http)])
def test_who_hangs_up_is_no_error_of_ours(service: Service, protocol: str) -> None:
    """A client that closes its half of the connection may go without an answer, but nothing unforeseen has happened."""
    face, good = _GOOD[protocol]
    answers = {face.ask(service, good, ends=True) for _ in range(20)}
    assert answers <= {"200 None", "499 None"}
