"""Versions come, go and come back under load: every request is answered, by a version with its own labels."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc

from protos.classifier_pb2 import ClassifyRequest, Image
from protos.classifier_pb2_grpc import ImageClassifierStub
from service.version import publish
from tests.conftest import CLASSES, VersionFactory
from tests.pictures import plain
from tests.running import HttpAnswer, Service, eventually, runs

_ROOT = Path(__file__).resolve().parent.parent
_COLOURS = ("red", "green", "blue")
_TOKEN = "correct-horse-battery"  # noqa: S105 - of this test alone


def _names(version: int) -> list[str]:
    """The labels of a version, which no other version has."""
    return [f"{name}-{version}" for name in CLASSES]


def _models(*words: str, models: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.models", "--models", str(models), *words]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)


@contextmanager
def _load(service: Service) -> Iterator[Callable[[int], None]]:
    """Four clients ask over both protocols as fast as they are answered. Gives `wait(answers)`.

    At the end every answer must have been one, with the labels of the version that it says it is from.
    """
    stop, answered = threading.Event(), threading.Semaphore(0)

    def ask(client: int) -> None:
        with grpc.insecure_channel(service.grpc) as channel:
            stub = ImageClassifierStub(channel)
            for number in itertools.count():
                if stop.is_set():
                    return
                colour = _COLOURS[number % 3]
                if client % 2:
                    answer = service.classify(plain(colour))
                    assert answer.status == 200, answer.body
                    version, label = answer.json["version"], answer.json["results"][0]["label"]
                else:
                    response = stub.Classify(ClassifyRequest(images=[Image(data=plain(colour))]), timeout=60)
                    version, label = response.version, response.results[0].label
                assert label == f"{colour}-{version}"
                answered.release()

    def wait(answers: int) -> None:
        for _ in range(answers):
            assert answered.acquire(timeout=60), [client.exception() for client in clients if client.done()]

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask, client) for client in range(4)]
        try:
            wait(8)
            yield wait
            wait(8)
        finally:
            stop.set()
        for client in clients:
            client.result()


def test_switches_rollbacks_and_kills_under_load(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """Two new versions, rollbacks by command and by call, a canary and two kill -9: no answer lost, none mislabelled.

    A rollback starts no engine; what is no longer wanted ends; who has no token changes nothing.
    """
    models = tmp_path / "models"
    version_factory(models, number=1, class_names=_names(1))
    (tmp_path / "token").write_text(_TOKEN + "\n", encoding="ascii")
    chosen = {"engine": "openvino/f32", "keep_previous_s": 3600, "admin_token_file": tmp_path / "token"}
    service = start_service(models, **chosen)
    later = {n: version_factory.unfinished(models, number=n, class_names=_names(n)) for n in (2, 3)}

    def live(number: int) -> None:
        eventually(lambda: service.live() == number, f"version {number} is live")

    def loaded() -> list[str]:
        return sorted(name for name in service.processes().values() if name.startswith("graft engine"))

    with _load(service) as wait:
        publish(later[2], models, "pets")
        live(2)
        wait(8)
        before = service.engines()
        assert _models("rollback", "pets", models=models).returncode == 0
        live(1)
        assert _call(service, "POST", "/pets/rollback", {"to": 2}).status == 200
        live(2)
        assert service.engines() == before  # both were there all the time
        os.kill(service.engines("pets/2")[0], signal.SIGKILL)
        wait(8)
        publish(later[3], models, "pets")
        assert _call(service, "PATCH", "/pets", {"labels": {"canary": 3}, "canary_share": 0.5}).status == 200
        eventually(lambda: service.classify(plain("red"), "?label=canary").status == 200, "the canary answers")
        assert service.live() == 2
        wait(20)
        os.kill(service.engines("pets/3")[0], signal.SIGKILL)
        wait(8)
        assert _call(service, "PATCH", "/pets", {"labels": None, "canary_share": None}).status == 200
        live(3)
        shutil.rmtree(models / "pets" / "2")
        eventually(lambda: loaded() == ["graft engine pets/3"], "only version 3 is left")
    assert {name: one["live"] for name, one in service.readyz().json["models"].items()} == {"pets": 3}

    nobody = service.request("POST", "/admin/models/pets/rollback")
    assert (nobody.status, nobody.json["code"], nobody.headers["WWW-Authenticate"]) == (
        401,
        "UNAUTHENTICATED",
        "Bearer",
    )
    wrong = {"Authorization": f"Bearer {_TOKEN}x"}
    assert service.request("GET", "/admin/models/pets", headers=wrong).status == 401
    assert _call(service, "GET", "/pets").json == {"versions": {"latest": 1}, "labels": {}, "canary_share": 0.0}
    for method, path, body, status in (
        ("GET", "/cats", None, 404),
        ("GET", "/..%2Fpets", None, 404),
        ("POST", "/pets/rollback", {"to": 9}, 400),
        ("POST", "/pets/rollback", {"to": True}, 400),
        ("PATCH", "/pets", {"labels": {"canary": "3"}}, 400),
        ("PATCH", "/pets", [], 400),
        ("PATCH", "/pets", None, 400),
        ("DELETE", "/pets", None, 405),
    ):
        assert _call(service, method, path, body).status == status, (method, path, body)
    assert service.live() == 3


def _call(service: Service, method: str, path: str, body: object = None) -> HttpAnswer:
    text = None if body is None else json.dumps(body)
    return service.request(method, f"/admin/models{path}", text, {"Authorization": f"Bearer {_TOKEN}"})


def test_a_supervisor_that_is_killed_in_the_midst_of_a_switch(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """The old version goes on; the next supervisor finishes the switch; no engine of the first one is left."""
    models = tmp_path / "models"
    version_factory(models, number=1, class_names=_names(1))
    first = start_service(models, engine="openvino/f32")
    waiting = version_factory.unfinished(models, number=2, class_names=_names(2))
    with _load(first) as wait:
        publish(waiting, models, "pets")
        eventually(lambda: "2" in first.readyz().json["models"]["pets"]["versions"], "version 2 is loading")
        orphans = [pid for pid in first.processes() if pid != first.process.pid]
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        wait(8)
        assert first.live() == 1
    command = [sys.executable, "-m", "service", "--models", str(models), "--run-dir", str(first.run_dir)]
    command += ["--http-port", first.http.rsplit(":", 1)[1], "--grpc-port", first.grpc.rsplit(":", 1)[1]]
    with (first.run_dir / "log").open("ab") as log:
        more = ["--engines", "1", "--engine", "openvino/f32"]
        first.process = subprocess.Popen([*command, *more], cwd=_ROOT, stdout=log, stderr=log)
    eventually(lambda: not any(map(runs, orphans)), "the orphans have ended")
    first.wait_ready()
    assert first.live() == 2
    assert first.classify(plain("red")).json["results"][0]["label"] == "red-2"


def test_a_directory_that_is_not_what_its_name_says_is_refused(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """A copy under another name would answer under that name: both names are told, and what was there goes on."""
    models = tmp_path / "models"
    original = version_factory(models, number=1)
    copies = ("pets/7", "cats/1")
    for copied in copies:
        shutil.copytree(original, models / copied)
    service = start_service(models, ready=False, engine="openvino/f32")

    def error(copied: str) -> str:
        name, number = copied.split("/")
        found: str = service.readyz().json["models"].get(name, {}).get("versions", {}).get(number, {}).get("error", "")
        return found

    for copied in copies:
        eventually(lambda copied=copied: error(copied), f"{copied} is refused")
        assert error(copied) == f"expected the manifest of {copied}, found that of pets/1"
    assert _refused(service) == {'graft_refused_versions{model="cats"} 1.0', 'graft_refused_versions{model="pets"} 1.0'}
    service.wait_ready()
    assert service.classify(plain("red"), "?model=pets").json["version"] == 1
    for copied in copies:
        shutil.rmtree(models / copied)
    eventually(lambda: _refused(service) == {'graft_refused_versions{model="pets"} 0.0'}, "the refusals are forgotten")


def _refused(service: Service) -> set[str]:
    lines = service.get("/metrics").body.decode().splitlines()
    return {line for line in lines if line.startswith("graft_refused_versions{")}
