"""Request ids, the log and the metrics of a running service: every answer can be found again in the log by its id."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from protos.classifier_pb2 import ClassifyRequest, ClassifyStreamRequest
from protos.classifier_pb2_grpc import (
    ImageClassifierServicer,
    ImageClassifierStub,
    add_ImageClassifierServicer_to_server,
)
from service.errors import Overloaded
from service.exchange import Observer, is_request_id, present
from service.grpc.call import Call
from service.grpc.observed import Methods
from service.settings import Settings
from tests.conftest import VersionFactory
from tests.pictures import plain
from tests.running import Service, eventually, start

_DEADLINE_S = 60


@pytest.fixture(scope="module")
def logged(version_factory: VersionFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two HTTP fronts that logs every request as JSON."""
    models = tmp_path_factory.mktemp("logged") / "models"
    version_factory(models)
    running = start(
        models, engines=1, engine="openvino/f32", workers=2, log_format="json", access_log="on", max_body_bytes=100_000
    )
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


def _lines(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]


def _line(service: Service, request_id: str) -> dict[str, Any]:
    """The access log's only line of a request."""
    found: list[dict[str, Any]] = eventually(
        lambda: [
            one for one in _lines(service) if one.get("request_id") == request_id and one["logger"] == "graft.access"
        ],
        f"a line of {request_id}",
    )
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/classify", plain("red"), 200),
        ("POST", "/classify", b"text", 415),
        ("POST", "/classify?top_k=x", plain("red"), 400),
        ("POST", "/classify", bytes(200_000), 413),
        ("GET", "/healthz", None, 200),
        ("GET", "/nowhere", None, 404),
        ("GET", "/classify", None, 405),
        ("GET", "/", None, 200),
        ("GET", "/v1/models/nobody", None, 404),
        ("GET", "/v2/models/nobody", None, 404),
    ],
)
def test_every_http_answer_has_the_id_of_its_request(logged: Service, method: str, path: str, body: Any, status: int):
    """The client's id comes back whatever the answer is, and stands in exactly one line with the status."""
    request_id = f"{method}:{path}:{status}"
    answer = logged.request(method, path, body, {"X-Request-Id": request_id})
    assert (answer.status, answer.headers["X-Request-Id"]) == (status, request_id)
    line = _line(logged, request_id)
    assert (line["protocol"], line["method"]) == ("http", f"{method} {path.partition('?')[0]}")
    assert (line["status"], line["level"]) == (str(status), "info")
    assert ("code" in line) == (status >= 400)


def test_an_access_line_says_what_was_answered(logged: Service) -> None:
    """Model, version, number of images and time."""
    logged.request("POST", "/classify", plain("red"), {"X-Request-Id": "what"})
    line = _line(logged, "what")
    assert (line["model"], line["version"], line["images"]) == ("pets", 1, 1)
    assert 0 < line["duration_ms"] < _DEADLINE_S * 1e3
    assert line["time"].endswith("Z")


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", "tab\there", "gr\u00f6\u00dfe", '"; DROP'])
def test_an_id_that_cannot_be_one_is_replaced(logged: Service, given: str) -> None:
    """Too long, with spaces, or not ASCII: a new one of 16 hexadecimal digits is made, different each time."""
    made = [
        logged.request("GET", "/healthz", None, {"X-Request-Id": given.encode("latin-1")}).headers["X-Request-Id"]
        for _ in range(2)
    ]
    assert len(set(made)) == 2
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in made)


def test_ids_that_can_be_one() -> None:
    """The limits."""
    assert all(is_request_id(one) for one in ("a", "x" * 128, "!~", "0af7651916cd43dd8448eb211c80319c", "a/b:c=d"))
    assert not any(is_request_id(one) for one in ("", "x" * 129, "a b", "a\n", "\x7f", "\xe9"))


def test_grpc_answers_have_the_id_of_their_request(logged: Service) -> None:
    """Good and bad calls, streams, and other people's methods: the id comes back behind the answer, and is logged."""
    with grpc.insecure_channel(logged.grpc) as channel:
        stub = ImageClassifierStub(channel)
        good = ClassifyRequest()
        good.images.add(data=plain("red"))

        def call(method: Callable[..., Any], message: Any, request_id: str) -> tuple[str, dict[str, Any]]:
            metadata = (("x-request-id", request_id),) if request_id else ()
            try:
                _, called = method.with_call(message, timeout=_DEADLINE_S, metadata=metadata)
            except grpc.RpcError as error:
                called = error  # an error is a call, too
            return called.code().name, dict(called.trailing_metadata())

        health = health_pb2_grpc.HealthStub(channel).Check
        for method, message, status in (
            (stub.Classify, good, "OK"),
            (stub.Classify, ClassifyRequest(), "INVALID_ARGUMENT"),
            (stub.Classify, ClassifyRequest(model="nobody", images=good.images), "NOT_FOUND"),
            (health, health_pb2.HealthCheckRequest(), "OK"),
            (health, health_pb2.HealthCheckRequest(service="nobody"), "NOT_FOUND"),
        ):
            request_id = f"grpc-{status}-{len(message.SerializeToString())}"
            code, metadata = call(method, message, request_id)
            assert (code, metadata["x-request-id"]) == (status, request_id)
            assert ("graft-error-code" in metadata) == (status != "OK" and method is not health)
            assert _line(logged, request_id)["status"] == status
        assert len(call(stub.Classify, good, "")[1]["x-request-id"]) == 16
        assert call(stub.Classify, good, "two words")[1]["x-request-id"] != "two words"

        stream = stub.ClassifyStream(
            iter([ClassifyStreamRequest(id=1, request=good), ClassifyStreamRequest(id=2, request=ClassifyRequest())]),
            timeout=_DEADLINE_S,
            metadata=(("x-request-id", "stream"),),
        )
        assert {one.id for one in stream} == {1, 2}
        assert dict(stream.trailing_metadata())["x-request-id"] == "stream"

    def statuses() -> list[str]:
        return sorted(one["status"] for one in _lines(logged) if one.get("request_id") == "stream")

    # two requests and the stream itself
    eventually(lambda: statuses() == ["INVALID_ARGUMENT", "OK", "OK"], "three lines of the stream")


def test_every_line_of_every_process_is_json(logged: Service) -> None:
    """Supervisor and fronts write one object per line, and nothing else appears."""
    lines = logged.log().splitlines()
    assert [line for line in lines if not line.startswith("{")] == []
    assert {"graft.supervisor", "graft.access"} <= {json.loads(line)["logger"] for line in lines}


def _sum(service: Service, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(service.get("/metrics").body.decode())
    return sum(
        one.value
        for family in families
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    )


def test_metrics_of_two_fronts_add_up(logged: Service) -> None:
    """Whichever front is asked, it tells what all have counted: requests, histograms, failures by code, encoding."""
    names: tuple[tuple[str, dict[str, str]], ...] = (
        ("graft_images_total", {"code": "OK"}),
        ("graft_request_seconds_count", {"protocol": "http"}),
        ("graft_encode_seconds_count", {"protocol": "http"}),
        ("graft_stage_seconds_count", {"stage": "inference"}),
        ("graft_failed_requests_total", {"code": "INVALID_REQUEST"}),
    )
    before = [_sum(logged, name, **labels) for name, labels in names]

    def ask(number: int) -> int:
        return logged.classify(plain("red"), "" if number % 4 else "?top_k=0").status

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(ask, range(40))) == [200] * 30 + [400] * 10
    for _ in range(6):  # both fronts are asked
        after = [_sum(logged, name, **labels) for name, labels in names]
        assert [late - early for late, early in zip(after, before, strict=True)] == [30, 30, 30, 30, 10]
    assert _sum(logged, "graft_requests_in_flight") == 0
    asked = {path.name for path in next(logged.run_dir.glob("*/metrics")).iterdir()}
    assert len({name for name in asked if name.startswith("counter_")}) == 3  # two HTTP fronts and gRPC


def test_the_log_is_quiet_and_readable_by_default(
    version_factory: VersionFactory, tmp_path: Path, start_service: Callable[..., Service]
) -> None:
    """Text, no line per request."""
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models", engine="openvino/f32")
    assert service.request("POST", "/classify", plain("red"), {"X-Request-Id": "one-of-many"}).status == 200
    assert "one-of-many" not in service.log()
    assert "INFO graft.supervisor" in service.log()


def test_a_call_that_is_refused_by_its_headers_is_an_exchange_too(caplog: pytest.LogCaptureFixture) -> None:
    """Counted, logged and answered with its id; only Classify is asked about, and who is let in is counted later."""
    busy = [True]

    def admit(_: Call) -> None:
        if busy:
            raise Overloaded("busy", retry_after_s=2.0)

    def counted() -> list[float | None]:
        names = (
            ("graft_requests_total", "status", "RESOURCE_EXHAUSTED"),
            ("graft_failed_requests_total", "code", "OVERLOADED"),
        )
        return [REGISTRY.get_sample_value(name, {"protocol": "grpc", label: value}) for name, label, value in names]

    methods = Methods(Observer(Settings(access_log="on")), {"/graft.v1.ImageClassifier/Classify": admit})
    add_ImageClassifierServicer_to_server(ImageClassifierServicer(), methods)
    assert [path for path, method in methods.by_name.items() if method.refuses] == [
        "/graft.v1.ImageClassifier/Classify"
    ]
    refuses, call = methods.by_name["/graft.v1.ImageClassifier/Classify"].refuses, _Called()
    before = [one or 0.0 for one in counted()]
    with caplog.at_level("INFO", "graft.access"):
        refusal = refuses(call)
    assert (refusal.status, refusal.details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
    assert refusal.trailing == [("graft-error-code", "OVERLOADED"), ("grpc-retry-pushback-ms", "2000")]
    assert call.trailing == (("x-request-id", "mine"),)
    assert counted() == [one + 1 for one in before]
    (record,) = caplog.records
    assert (record.fields["status"], record.fields["code"]) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert present() is None
    busy.clear()
    assert refuses(call) is None
    assert counted() == [one + 1 for one in before]


class _Called:
    """What is looked at of a call."""

    metadata: ClassVar = {"x-request-id": "mine"}
    trailing = ()
