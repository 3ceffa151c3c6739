"""What a running service says when it cannot answer now, and when more than one model is there to be asked."""

import base64
import json
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.classifier_pb2 import ClassifyRequest, Image
from protos.classifier_pb2_grpc import ImageClassifierStub
from tests.pictures import plain
from tests.running import eventually

_ROOT = Path(__file__).resolve().parents[2]
_STATES = health_pb2.HealthCheckResponse


def _json(images: int) -> str:
    one = {"b64": base64.b64encode(plain("red")).decode()}
    return json.dumps({"images": [one] * images})


def _refused(service, images: int) -> tuple[grpc.StatusCode, str, str]:
    """How a call over gRPC is refused: status, error's code, message."""
    with grpc.insecure_channel(service.grpc) as channel:
        request = ClassifyRequest(images=[Image(data=plain("red"))] * images)
        with pytest.raises(grpc.RpcError) as refused:
            ImageClassifierStub(channel).Classify(request, timeout=20, wait_for_ready=True)
    error = refused.value
    return error.code(), dict(error.trailing_metadata())["graft-error-code"], error.details()


def _health(service) -> int:
    with grpc.insecure_channel(service.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(), timeout=20, wait_for_ready=True).status


def test_overload_waiting_and_choice_of_model(start_service, version_factory, tmp_path: Path) -> None:
    """One service from no model at all to two of them, with a queue of four images.

    503 while nothing is loaded, 429 for more images than the queue holds, both with Retry-After and both over gRPC as
    UNAVAILABLE and RESOURCE_EXHAUSTED; with two models a request must name one.
    """
    models = tmp_path / "models"
    service = start_service(models, ready=False, max_queue=4, engine="openvino/f32")
    nothing = service.classify(plain("red"))
    assert (nothing.status, nothing.headers["Retry-After"], nothing.json["code"]) == (503, "1", "UNAVAILABLE")
    assert nothing.json["detail"] == "no model is loaded yet"
    assert _refused(service, 1) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "no model is loaded yet")
    assert _health(service) == _STATES.NOT_SERVING

    version_factory(models, "pets", unknown_threshold=0.9)
    service.wait_ready()
    eventually(lambda: _health(service) == _STATES.SERVING, "serving")
    for images in (5, 20):
        full = service.classify(_json(images), "", "application/json")
        assert (full.status, full.headers["Retry-After"], full.json["code"]) == (429, "1", "OVERLOADED")
        assert "expected at most 4 images in flight" in full.json["detail"]
        assert _refused(service, images)[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    known, unknown = (service.classify(plain(colour)).json["results"][0] for colour in ("red", "grey"))
    assert (known["label"], known["unknown"]) == ("red", False)
    assert (unknown["label"], unknown["unknown"]) == ("grey", True)  # its score is 0.71, the threshold 0.9

    version_factory(models, "colours", class_names=["rot", "grün", "blau", "grau"])
    eventually(lambda: service.live("colours"), "the second model")
    eventually(lambda: service.classify(plain("red")).status == 404, "the front knows")
    which = service.classify(plain("red")).json
    assert which["detail"] == "expected a model name, got none; there are: colours, pets"
    assert service.classify(plain("green"), "?model=colours").json["results"][0]["label"] == "grün"
    assert service.classify(plain("green"), "?model=pets").json["results"][0]["label"] == "green"


def test_a_request_that_takes_too_long_is_given_up(start_service, version_factory, tmp_path: Path) -> None:
    """The service's own limit of a millisecond: 504, DEADLINE_EXCEEDED, in time, and the service goes on."""
    models = tmp_path / "models"
    version_factory(models)
    service = start_service(models, engine="openvino/f32", request_timeout_s=0.001)
    engine = service.engines()
    late = service.classify(_json(100), "", "application/json")
    assert late.json["results"][-1]["error"]["code"] == "DEADLINE_EXCEEDED"
    assert late.json["results"][-1]["error"]["detail"].startswith(("no answer within", "the deadline passed"))
    alone = eventually(lambda: (one := service.classify(plain("red"))).status == 504 and one, "a late answer")
    assert alone.json["results"][0]["error"]["code"] == "DEADLINE_EXCEEDED"
    assert service.engines() == engine
    assert service.readyz().status == 200


def test_a_port_that_is_taken_is_said_at_once(tmp_path: Path) -> None:
    """Exit code 1 and one line that names the address; no process stays behind."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "service", "--http-port", str(port), "--grpc-port", "0", "--run-dir", str(tmp_path)],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"error: cannot listen on 127.0.0.1:{port}: Address already in use"]
    assert not (tmp_path / "children.json").exists()
