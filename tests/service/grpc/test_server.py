"""service/grpc/server.py: what a client may do to the process itself."""

import queue
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.classifier_pb2 import ClassifyRequest, ClassifyStreamRequest
from protos.classifier_pb2_grpc import ImageClassifierStub
from tests.conftest import VersionFactory
from tests.pictures import plain
from tests.running import Service, eventually

_STATES = health_pb2.HealthCheckResponse
_ASKED = ClassifyRequest(images=[{"data": plain("red")}])
_ZEROS_BYTES = 48 << 20
_DRAIN_TIMEOUT_S = 30.0


def _most_memory(pid: int) -> int:
    """The most bytes that a process ever had in memory."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) << 10


def _at_once(stub: ImageClassifierStub, request: ClassifyRequest, compression: grpc.Compression) -> None:
    stub.Classify(request, timeout=60, compression=compression)


def _streamed(stub: ImageClassifierStub, request: ClassifyRequest, compression: grpc.Compression) -> None:
    list(stub.ClassifyStream(iter([ClassifyStreamRequest(request=request)]), timeout=60, compression=compression))


@pytest.mark.parametrize("ask", [_at_once, _streamed])
def test_compressed_messages_are_refused_before_they_are_inflated(
    ask: Callable[..., None], version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
) -> None:
    """50 MB of zeros in 50 kB: UNIMPLEMENTED, and the front has needed no memory for them."""
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models", max_body_bytes=64 << 20, max_image_bytes=64 << 20)
    (front,) = (pid for pid, name in service.processes().items() if name == "graft front grpc")
    with grpc.insecure_channel(service.grpc, options=[("grpc.max_send_message_length", -1)]) as channel:
        stub = ImageClassifierStub(channel)
        assert stub.Classify(_ASKED, timeout=60).results[0].label == "red"
        before = _most_memory(front)
        bomb = ClassifyRequest(images=[{"data": bytes(_ZEROS_BYTES)}])
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            with pytest.raises(grpc.RpcError) as refused:
                ask(stub, bomb, compression)
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert refused.value.details() == f"Compression algorithm '{compression.name.lower()}' is disabled."
        assert _most_memory(front) - before < 8 << 20
        assert stub.Classify(_ASKED, timeout=60).results[0].label == "red"


def test_who_watches_the_health_hears_the_end_and_delays_it_by_nothing(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
) -> None:
    """SERVING, NOT_SERVING, and the stream's own end, long before the drain timeout; a watch of nothing ends, too."""
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models", drain_timeout_s=_DRAIN_TIMEOUT_S)
    names = ("", "graft.v1.ImageClassifier")
    told: dict[str, queue.SimpleQueue[int | grpc.StatusCode]] = {name: queue.SimpleQueue() for name in names}

    def follow(name: str, watch: Iterator[health_pb2.HealthCheckResponse]) -> None:
        for state in watch:
            told[name].put(state.status)
        told[name].put(watch.code())  # type: ignore[attr-defined]  # of a call

    def hear() -> list[int | grpc.StatusCode]:
        return [heard.get(timeout=60) for heard in told.values()]

    with grpc.insecure_channel(service.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        nothing = health.Watch(health_pb2.HealthCheckRequest(service="cats"))
        assert next(nothing).status == _STATES.SERVICE_UNKNOWN
        with pytest.raises(grpc.RpcError) as unknown:
            health.Check(health_pb2.HealthCheckRequest(service="cats"), timeout=60)
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
        for name in names:
            asked = health_pb2.HealthCheckRequest(service=name)
            # this front may see it a moment later than the other, which was asked first
            eventually(lambda asked=asked: health.Check(asked, timeout=60).status == _STATES.SERVING, "serving")  # type: ignore[misc]
            threading.Thread(target=follow, args=[name, health.Watch(asked)]).start()
        assert hear() == [_STATES.SERVING] * 2
        service.processes()
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert hear() == [_STATES.NOT_SERVING] * 2
        assert hear() == [grpc.StatusCode.OK] * 2
        assert list(nothing) == []
        assert service.process.wait(60) == 0
        assert time.monotonic() - began < _DRAIN_TIMEOUT_S / 3
