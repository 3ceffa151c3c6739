"""Traces: a running service sends the spans of its requests to a collector, here an HTTP server in the test."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from protos.classifier_pb2 import ClassifyRequest, ClassifyStreamRequest
from protos.classifier_pb2_grpc import ImageClassifierStub
from service.settings import read_settings
from tests.conftest import VersionFactory
from tests.pictures import plain
from tests.running import Service, eventually, start

_ROOT = Path(__file__).resolve().parents[2]
_TRACE = "0af7651916cd43dd8448eb211c8031{:02x}"
_CALLER = "b7ad6b7169203331"
_STAGES = ["decode", "encode", "inference", "queue", "read"]


class Collector:
    """Keeps every span that it is sent, by trace."""

    def __init__(self) -> None:
        spans: list[Any] = []

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    raise AssertionError("expected what was sent as it is")
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    names = {one.key: one.value.string_value for one in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        spans.extend((self.path, names["service.name"], span) for span in scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self._spans = spans
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def all(self) -> Sequence[Any]:
        """Every span so far."""
        assert {one[:2] for one in self._spans} <= {("/v1/traces", "graft")}
        return [span for _, _, span in self._spans]

    @property
    def url(self) -> str:
        """What --otlp-endpoint takes."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def spans(self, trace_id: str, count: int) -> Sequence[Any]:
        """The spans of a trace, once there are so many."""

        def found() -> Sequence[Any]:
            return [span for span in self.all() if span.trace_id.hex() == trace_id]

        eventually(lambda: len(found()) >= count, f"{count} spans of {trace_id}")
        spans = found()
        assert len(spans) == count, [span.name for span in spans]
        return spans


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """One for all tests of this module."""
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def traced(
    version_factory: VersionFactory, tmp_path_factory: pytest.TempPathFactory, collector: Collector
) -> Iterator[Service]:
    """A service that sends its traces there, soon after they were made."""
    models = tmp_path_factory.mktemp("traced") / "models"
    version_factory(models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        running = start(
            models, engines=1, engine="openvino/f32", otlp_endpoint=collector.url, log_format="json", access_log="on"
        )
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


def _attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def _check_family(spans: Sequence[Any], parent: str = _CALLER) -> Any:
    """One span of the request below the caller's, its stages below it and within its time; returns the request's."""
    (root,) = (span for span in spans if span.name not in _STAGES)
    assert root.parent_span_id.hex() == parent
    children = [span for span in spans if span is not root]
    for child in children:
        assert child.parent_span_id == root.span_id
        assert root.start_time_unix_nano <= child.start_time_unix_nano <= child.end_time_unix_nano
        # the times in an answer are float32 milliseconds
        assert child.end_time_unix_nano <= root.end_time_unix_nano + 10_000
    return root


def test_a_request_over_http(traced: Service, collector: Collector) -> None:
    """The caller's trace goes on: a span of the request below its own, five of the stages, in order and with times."""
    trace_id = _TRACE.format(1)
    headers = {"traceparent": f"00-{trace_id}-{_CALLER}-01", "X-Request-Id": "traced"}
    answer = traced.request("POST", "/classify", plain("red"), headers)
    assert answer.status == 200
    spans = collector.spans(trace_id, 6)
    root = _check_family(spans)
    assert (root.name, root.kind, root.status.code) == ("POST /classify", 2, 0)
    about = _attributes(root)
    assert (about["http.response.status_code"], about["graft.request_id"]) == (200, "traced")
    assert (about["graft.model"], about["graft.version"], about["graft.images"]) == ("pets", 1, 1)
    stages = {span.name: span for span in spans if span is not root}
    assert sorted(stages) == _STAGES
    order = sorted(stages.values(), key=lambda span: (span.start_time_unix_nano, span.end_time_unix_nano))
    assert [span.name for span in order] == ["read", "queue", "decode", "inference", "encode"]
    timing_ms = answer.json["results"][0]["timing_ms"]
    for name, took_ms in timing_ms.items():
        measured_ns = stages[name].end_time_unix_nano - stages[name].start_time_unix_nano
        assert measured_ns == pytest.approx(took_ms * 1e6, abs=2000)
    assert f'"trace_id": "{trace_id}"' in traced.log()


def test_a_request_over_grpc(traced: Service, collector: Collector) -> None:
    """Likewise, with the parent in the metadata; two images have stages each."""
    trace_id = _TRACE.format(2)
    asked = ClassifyRequest()
    asked.images.add(data=plain("red"))
    asked.images.add(data=plain("blue"))
    with grpc.insecure_channel(traced.grpc) as channel:
        metadata = (("traceparent", f"00-{trace_id}-{_CALLER}-01"),)
        ImageClassifierStub(channel).Classify(asked, timeout=60, metadata=metadata)
    spans = collector.spans(trace_id, 9)
    root = _check_family(spans)
    assert (root.name, root.kind) == ("graft.v1.ImageClassifier/Classify", 2)
    assert _attributes(root)["rpc.response.status_code"] == "OK"
    images = [_attributes(span).get("graft.image") for span in spans if span.name == "inference"]
    assert sorted(images) == [0, 1]


def test_a_stream(traced: Service, collector: Collector) -> None:
    """The stream's span has the caller's for parent, and every request of it has the stream's."""
    trace_id = _TRACE.format(3)
    asked = ClassifyRequest()
    asked.images.add(data=plain("red"))
    with grpc.insecure_channel(traced.grpc) as channel:
        metadata = (("traceparent", f"00-{trace_id}-{_CALLER}-01"),)
        requests = iter([ClassifyStreamRequest(id=1, request=asked), ClassifyStreamRequest(id=2)])
        assert len(list(ImageClassifierStub(channel).ClassifyStream(requests, timeout=60, metadata=metadata))) == 2
    spans = collector.spans(trace_id, 8)
    (stream,) = (span for span in spans if span.parent_span_id.hex() == _CALLER)
    requests_of_it = [span for span in spans if span.parent_span_id == stream.span_id]
    assert sorted(span.status.code for span in requests_of_it) == [0, 2]
    good = next(span for span in requests_of_it if span.status.code == 0)
    _check_family([good, *(s for s in spans if s.parent_span_id == good.span_id)], stream.span_id.hex())


def test_errors(traced: Service, collector: Collector) -> None:
    """A refused request has a span with the code; what the caller did wrong is no error of the server's."""
    trace_id = _TRACE.format(4)
    headers = {"traceparent": f"00-{trace_id}-{_CALLER}-01"}
    assert traced.request("POST", "/classify?top_k=0", plain("red"), headers).status == 400
    (span,) = collector.spans(trace_id, 1)
    about = _attributes(span)
    assert (about["http.response.status_code"], about["error.type"], span.status.code) == (400, "INVALID_REQUEST", 0)


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-" + "0" * 32 + f"-{_CALLER}-01"])
def test_without_a_usable_parent_a_trace_begins(traced: Service, collector: Collector, traceparent: str) -> None:
    """Malformed headers count as none."""
    request_id = f"root-{len(traceparent)}"
    traced.request("GET", "/healthz", None, {"traceparent": traceparent, "X-Request-Id": request_id})

    def found() -> Sequence[Any]:
        return [one for one in collector.all() if _attributes(one).get("graft.request_id") == request_id]

    (span,) = eventually(found, "its span")
    assert span.parent_span_id == b""


def test_a_caller_that_samples_nothing_gets_nothing(traced: Service, collector: Collector) -> None:
    """The flag in the parent decides."""
    quiet, loud = _TRACE.format(5), _TRACE.format(6)
    for trace_id, flags in ((quiet, "00"), (loud, "01")):
        headers = {"traceparent": f"00-{trace_id}-{_CALLER}-{flags}"}
        assert traced.request("POST", "/classify", plain("red"), headers).status == 200
    collector.spans(loud, 6)
    assert collector.spans(quiet, 0) == []


def test_a_collector_that_is_away_harms_nobody(
    version_factory: VersionFactory, tmp_path: Path, start_service: Callable[..., Service]
) -> None:
    """Requests are answered and the service ends as ever; the log says that spans were lost."""
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models", engine="openvino/f32", otlp_endpoint="http://127.0.0.1:9")
    for _ in range(3):
        assert service.classify(plain("red")).status == 200
    assert service.terminate() == 0
    assert "Traceback" not in service.log(), service.log()


def test_traces_need_the_extra(tmp_path: Path) -> None:
    """Without OpenTelemetry the service says what to install and does not start."""
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").touch()  # hides the installed one
    done = subprocess.run(
        [sys.executable, "-m", "service", "--otlp-endpoint", "http://localhost:4318"],
        cwd=_ROOT,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install '.[otel]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("endpoint", ["localhost:4318", "ftp://x", "http://", "http://x:99999"])
def test_an_endpoint_is_a_url(endpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else is refused at the start."""
    with pytest.raises(SystemExit):
        read_settings(["--otlp-endpoint", endpoint], {})
    assert "expected a URL such as http://localhost:4318" in capsys.readouterr().err


def test_without_an_endpoint_nothing_of_it_is_loaded() -> None:
    """Fronts do not import OpenTelemetry unless they are told to use it."""
    code = "import service.http.app, service.grpc.server, sys; print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
