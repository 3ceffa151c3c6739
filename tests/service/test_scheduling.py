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

from protos.classifier_pb2 import BULK, ClassifyRequest, Image
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


def _request(service: Service, query: str = "", headers: str = "") -> socket.socket:
    """Sends a whole request without waiting for the answer."""
    host, port = service.http.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    body = json.dumps({"images": [{"b64": base64.b64encode(plain("red")).decode()}] * _IMAGES})
    headers += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(f"POST /classify{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}".encode())
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
