"""Deadlines, priorities and hang-ups of callers, end to end over both protocols.

The engine is stopped with SIGSTOP while requests wait, so that what happens to them meanwhile is certain.
"""

import base64
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from protos import open_inference_pb2 as oip
from protos import tensorflow_serving_pb2 as tfs
from protos.classifier_pb2 import BULK, ClassifyRequest, ClassifyResponse, Image
from protos.classifier_pb2_grpc import ImageClassifierStub
from service.backlog import SUFFIX, Backlog
from tests.pictures import plain
from tests.running import Service, eventually


@pytest.fixture(scope="module")
def lone(version_factory, tmp_path_factory) -> Iterator[Service]:
    """A service of one engine, whose target is a minute."""
    from tests.running import start  # noqa: PLC0415 - beside its only use

    models = tmp_path_factory.mktemp("lone") / "models"
    version_factory(models)
    service = start(models, engines=1, engine="openvino/f32", engine_timeout_s=120)
    try:
        service.wait_ready()
        yield service
    finally:
        service.stop()


@contextmanager
def _stopped(service: Service) -> Iterator[Backlog]:
    """The engine does nothing meanwhile; gives the numbers of what waits for it."""
    (engine,) = service.engines()
    (path,) = service.run_dir.glob(f"*/engine-*{SUFFIX}")
    backlog = Backlog(str(path).removesuffix(SUFFIX))
    os.kill(engine, signal.SIGSTOP)
    try:
        yield backlog
    finally:
        os.kill(engine, signal.SIGCONT)
        backlog.close()


_IMAGES = 10
"""In every request that waits, so that the probes of readiness, which come and go, are told apart from it."""


def _waits(backlog: Backlog, interactive: int, bulk: int = 0) -> Callable[[], bool]:
    """Whether so many requests are there."""
    return lambda: [count // _IMAGES for count in backlog.in_flight()] == [interactive, bulk]


_B64 = {"b64": base64.b64encode(plain("red")).decode()}
_TENSOR = {"name": "image_bytes", "datatype": "BYTES", "shape": [_IMAGES], "data": [_B64["b64"]] * _IMAGES}
_OVER_HTTP = {
    "/classify": {"images": [_B64] * _IMAGES},
    "/v1/models/pets:predict": {"signature_name": "serving_bytes", "instances": [_B64] * _IMAGES},
    "/v1/models/pets:classify": {"examples": [{"image/encoded": _B64}] * _IMAGES},
    "/v2/models/pets/infer": {"inputs": [_TENSOR]},
}


def _over_grpc() -> dict[str, tuple[object, type]]:
    """Every method that classifies, with a request and the answer's type."""
    predict = tfs.PredictRequest(model_spec={"name": "pets", "signature_name": "serving_bytes"})
    predict.inputs["image_bytes"].CopyFrom(tfs.TensorProto(dtype=tfs.DT_STRING, string_val=[plain("red")] * _IMAGES))
    predict.inputs["image_bytes"].tensor_shape.dim.add(size=_IMAGES)
    examples = tfs.ClassificationRequest(model_spec={"name": "pets"})
    for _ in range(_IMAGES):
        feature = examples.input.example_list.examples.add().features.feature["image/encoded"]
        feature.bytes_list.value.append(plain("red"))
    infer = oip.ModelInferRequest(model_name="pets")
    infer.inputs.add(name="image_bytes", datatype="BYTES", shape=[_IMAGES])
    infer.inputs[0].contents.bytes_contents.extend([plain("red")] * _IMAGES)
    own = ClassifyRequest(images=[Image(data=plain("red"))] * _IMAGES)
    return {
        "/graft.v1.ImageClassifier/Classify": (own, ClassifyResponse),
        "/tensorflow.serving.PredictionService/Predict": (predict, tfs.PredictResponse),
        "/tensorflow.serving.PredictionService/Classify": (examples, tfs.ClassificationResponse),
        "/inference.GRPCInferenceService/ModelInfer": (infer, oip.ModelInferResponse),
    }


def _calls(channel: grpc.Channel, **terms: object) -> list[grpc.Future]:
    """Begins all of them."""
    return [
        channel.unary_unary(method, type(request).SerializeToString, answer.FromString).future(request, **terms)
        for method, (request, answer) in _over_grpc().items()
    ]


def _request(service: Service, query: str = "", headers: str = "", path: str = "/classify") -> socket.socket:
    """Sends a whole request without waiting for the answer."""
    host, port = service.http.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    body = json.dumps(_OVER_HTTP[path])
    headers += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(f"POST {path}{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}".encode())
    return connection


def test_the_deadline_in_the_header_is_kept(lone: Service) -> None:
    """The engine does not answer: 504 after the 50 ms that the caller gave, not after the service's 30 s."""
    with _stopped(lone):
        late = lone.request("POST", "/classify", plain("red"), {"X-Request-Timeout-Ms": "50"})
    assert (late.status, late.json["results"][0]["error"]["code"]) == (504, "DEADLINE_EXCEEDED")
    assert late.json["results"][0]["error"]["detail"].startswith("no answer within 0.0")
    assert lone.classify(plain("red")).status == 200


@pytest.mark.parametrize("text", ["0", "-1", "soon", "1.5", "99999999999999999999", ""])
def test_a_deadline_that_is_none_is_refused(lone: Service, text: str) -> None:
    """A whole number of milliseconds, at least one."""
    answer = lone.request("POST", "/classify", plain("red"), {"X-Request-Timeout-Ms": text})
    assert (answer.status, answer.json["code"]) == (400, "INVALID_REQUEST")
    assert "expected X-Request-Timeout-Ms to be an integer of 1 to 1000000000" in answer.json["detail"]


def test_a_client_that_hangs_up_takes_its_image_along(lone: Service) -> None:
    """Over HTTP and over gRPC: the image leaves the backlog while the engine is still stopped, so it never runs."""
    with _stopped(lone) as backlog, grpc.insecure_channel(lone.grpc) as channel:
        connection = _request(lone)
        call = ImageClassifierStub(channel).Classify.future(
            ClassifyRequest(images=[Image(data=plain("red"))] * _IMAGES)
        )
        other = _request(lone, "?priority=bulk")
        eventually(_waits(backlog, 2, 1), "both wait")
        connection.close()
        eventually(_waits(backlog, 1, 1), "the HTTP client's is gone")
        call.cancel()
        eventually(_waits(backlog, 0, 1), "the gRPC client's are gone")
    assert other.recv(12) == b"HTTP/1.1 200"
    other.close()
    count = 'graft_requests_total{protocol="http",status="499"} 1.0'
    assert count in lone.get("/metrics").body.decode()


def test_priorities_are_told_apart_in_every_form(lone: Service) -> None:
    """Query, header and field; interactive when nothing is said."""
    request = ClassifyRequest(images=[Image(data=plain("red"))] * _IMAGES, priority=BULK)
    with grpc.insecure_channel(lone.grpc) as channel:
        with _stopped(lone) as backlog:
            connections = [
                _request(lone, "?priority=bulk"),
                _request(lone, "", "X-Request-Priority: bulk\r\n"),
                _request(lone, "?priority=interactive", "X-Request-Priority: bulk\r\n"),
                _request(lone),
            ]
            call = ImageClassifierStub(channel).Classify.future(request)
            eventually(_waits(backlog, 2, 3), "three of bulk wait")
        assert call.result().results[0].label == "red"
    for connection in connections:
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.close()


def test_every_interface_takes_priorities(lone: Service) -> None:
    """The header over HTTP, the metadata over gRPC: what each of them sends waits as bulk, and is answered."""
    with grpc.insecure_channel(lone.grpc) as channel:
        with _stopped(lone) as backlog:
            connections = [_request(lone, "", "X-Request-Priority: bulk\r\n", path) for path in _OVER_HTTP]
            calls = _calls(channel, metadata=(("x-request-priority", "bulk"),), timeout=60)
            eventually(_waits(backlog, 0, len(connections) + len(calls)), "all wait as bulk")
        assert [call.code() for call in calls] == [grpc.StatusCode.OK] * len(calls)
    for connection in connections:
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.close()


def test_every_interface_keeps_deadlines(lone: Service) -> None:
    """The engine does not answer: 504 and DEADLINE_EXCEEDED after the caller's time, and nothing is left to do."""
    with grpc.insecure_channel(lone.grpc) as channel, _stopped(lone) as backlog:
        connections = [_request(lone, "", "X-Request-Timeout-Ms: 300\r\n", path) for path in _OVER_HTTP]
        calls = _calls(channel, timeout=1)
        eventually(lambda: backlog.in_flight()[0] >= _IMAGES, "some of them wait")
        for connection in connections:
            assert connection.recv(12) == b"HTTP/1.1 504"
            connection.close()
        assert [call.code() for call in calls] == [grpc.StatusCode.DEADLINE_EXCEEDED] * len(calls)
        eventually(_waits(backlog, 0), "nobody waits any more")


def test_no_interface_takes_an_unknown_priority(lone: Service) -> None:
    """400 and INVALID_ARGUMENT, in the words of /classify."""
    expected = "expected priority to be interactive or bulk, got 'urgent'"
    for path, document in _OVER_HTTP.items():
        answer = lone.request("POST", path, json.dumps(document), {"X-Request-Priority": "urgent"})
        assert (answer.status, expected in answer.body.decode()) == (400, True), path
    with grpc.insecure_channel(lone.grpc) as channel:
        for call in _calls(channel, metadata=(("x-request-priority", "urgent"),), timeout=20):
            assert (call.code(), call.details()) == (grpc.StatusCode.INVALID_ARGUMENT, expected)


def test_an_unknown_priority_is_refused(lone: Service) -> None:
    """Over both protocols, and says which there are."""
    answer = lone.classify(plain("red"), "?priority=urgent")
    assert (answer.status, answer.json["detail"]) == (400, "expected priority to be interactive or bulk, got 'urgent'")
    with grpc.insecure_channel(lone.grpc) as channel, pytest.raises(grpc.RpcError) as refused:
        ImageClassifierStub(channel).Classify(ClassifyRequest(images=[Image(data=plain("red"))], priority=7))
    assert refused.value.details() == "expected priority to be 0 (interactive) or 1 (bulk), got 7"


def test_what_could_not_be_in_time_is_refused_at_once(start_service, version_factory, tmp_path: Path) -> None:
    """With a target that no queue can meet, whoever comes while somebody waits is refused, over both protocols.

    Bulk, whom nobody promised a time, is let in; probes are, too, so the service stays ready.
    """
    models = tmp_path / "models"
    version_factory(models)
    service = start_service(models, engine="openvino/f32", target_p99_ms=1, engine_timeout_s=120)
    assert service.classify(plain("red")).status == 200
    with _stopped(service) as backlog, grpc.insecure_channel(service.grpc) as channel:
        first = _request(service, "?priority=bulk")
        eventually(_waits(backlog, 0, 1), "bulk waits")
        second = _request(service)
        eventually(_waits(backlog, 1, 1), "an image waits")
        refused = service.classify(plain("red"))
        assert (refused.status, refused.json["code"], refused.headers["Retry-After"]) == (429, "OVERLOADED", "1")
        assert "expected to begin within 0 s to be in time" in refused.json["detail"]
        third = _request(service, "?priority=bulk")
        eventually(_waits(backlog, 1, 2), "more of bulk waits")
        with pytest.raises(grpc.RpcError) as error:
            ImageClassifierStub(channel).Classify(ClassifyRequest(images=[Image(data=plain("red"))]), timeout=60)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(error.value.trailing_metadata())["grpc-retry-pushback-ms"]) >= 1
    for connection in (first, second, third):
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.close()
    assert service.readyz().status == 200
