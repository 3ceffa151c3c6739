"""More than can be answered: whoever is let in is answered, whoever is not is told at once, and nobody is lost."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.arrivals import GrpcSender, HttpSender, Loop, Seen, begin_closed, begin_open
from protos.classifier_pb2 import BULK, ClassifyRequest, Image
from tests.pictures import plain
from tests.running import Service, eventually, start

_IMAGE = plain("red", size=(1500, 1500))
_HTTP = {"200", "429", "504"}
_GRPC = {"OK", "refused", "late"}
_MOST_ROUNDS = 10
"""On a machine that is slow just now two seconds may be over before the first answer."""


@pytest.fixture(scope="module")
def hurried(version_factory, tmp_path_factory: pytest.TempPathFactory):
    """One engine, and a target that lets no more than a few of these pictures wait."""
    models: Path = tmp_path_factory.mktemp("hurried") / "models"
    version_factory(models)
    service = start(models, engines=1, engine="openvino/f32", target_p99_ms=1000)
    try:
        service.wait_ready()
        yield service
    finally:
        service.stop()


def _overload(service: Service) -> tuple[Seen, Seen, Seen]:
    """256 clients over HTTP that ask again at once, beside arrivals and bulk over gRPC."""
    asked = ClassifyRequest(images=[Image(data=_IMAGE)])
    bulk = ClassifyRequest(images=[Image(data=_IMAGE)] * 4, priority=BULK)
    loop = Loop()
    http = HttpSender(loop, service.http, [_IMAGE], timeout_ms=2000)
    senders = [GrpcSender(loop, service.grpc, [one.SerializeToString()], timeout_ms=2000) for one in (asked, bulk)]
    seen = begin_closed(http, 256, 2), begin_open(senders[0], 200, 2), begin_closed(senders[1], 4, 2)
    loop.run()
    for sender in (http, *senders):
        sender.close()
    return seen


def test_nobody_is_lost(hurried: Service) -> None:
    """Every request has one of three outcomes, some of each protocol's are answers, and then all is as before."""
    http, arrivals, bulk = Counter[str](), Counter[str](), Counter[str]()
    for _ in range(_MOST_ROUNDS):
        for codes, seen in zip((http, arrivals, bulk), _overload(hurried), strict=True):
            codes.update(seen.codes)
        if http["200"] and arrivals["OK"] + bulk["OK"]:
            break
    assert (set(http) | set(arrivals) | set(bulk)) <= _HTTP | _GRPC
    assert http["200"] > 0
    assert http["429"] > http["200"]
    assert arrivals["refused"] > 0
    assert arrivals["OK"] + bulk["OK"] > 0
    eventually(lambda: b"graft_requests_in_flight 0.0" in hurried.get("/metrics").body, "nothing is left")
    assert hurried.classify(_IMAGE).json["results"][0]["label"] == "red"
    assert Counter(hurried.processes().values())["graft engine pets/1"] == 1
    assert b"graft_engine_restarts_total 0.0" in hurried.get("/metrics").body


def test_what_processes_write_to_in_memory_is_reserved_on_the_disk(hurried: Service) -> None:
    """Writing into a hole of a mapped file ends a process on a full disk: no file of a front or an engine has one."""
    mapped = [*hurried.run_dir.glob("*/metrics/*.db"), *hurried.run_dir.glob("*/*.backlog")]
    assert {path.suffix for path in mapped} == {".db", ".backlog"}
    for path in mapped:
        status = path.stat()
        assert status.st_blocks * 512 >= status.st_size, path.name
