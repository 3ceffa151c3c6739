"""What must not be lost when processes die and versions change while requests are on their way."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format

from protos.classifier_pb2 import ClassifyRequest, Image
from protos.classifier_pb2_grpc import ImageClassifierStub
from protos.manifest_pb2 import Manifest
from service.manifest import MANIFEST
from service.version import publish, write_manifest
from tests.conftest import CLASSES, VersionFactory
from tests.pictures import plain
from tests.running import Service, eventually, runs

RENAMED = ("rot", "gruen", "blau", "grau")
LABELS = {1: dict(zip(CLASSES, CLASSES, strict=True)), 2: dict(zip(CLASSES, RENAMED, strict=True))}
COLOURS = ("red", "green", "blue")


def _ask(service: Service, stub: ImageClassifierStub, colour: str, over_http: bool) -> tuple[int, str]:
    image = plain(colour)
    if over_http:
        answer = service.classify(image)
        assert answer.status == 200, answer.body
        return answer.json["version"], answer.json["results"][0]["label"]
    response = stub.Classify(ClassifyRequest(images=[Image(data=image)]), timeout=60)
    return response.version, response.results[0].label


def test_no_request_is_lost_when_engines_are_killed_and_a_version_is_published(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """200 requests of 16 clients over both protocols, two kill -9 and one new version: 200 right answers."""
    models = tmp_path / "models"
    version_factory(models, number=1)
    service = start_service(models, engines=2)
    ready_to_publish = version_factory.unfinished(models, number=2, class_names=RENAMED)
    answered = threading.Semaphore(0)

    def one(number: int) -> tuple[str, int, str]:
        colour = random.Random(number).choice(COLOURS)
        version, label = _ask(service, stub, colour, over_http=number % 2 == 0)
        answered.release()
        return colour, version, label

    def disturb() -> None:
        for act in (kill, lambda: publish(ready_to_publish, models, "pets"), kill):
            for _ in range(40):
                assert answered.acquire(timeout=60)
            act()

    def kill() -> None:
        os.kill(service.engines()[0], signal.SIGKILL)

    with grpc.insecure_channel(service.grpc) as channel, ThreadPoolExecutor(17) as clients:
        stub = ImageClassifierStub(channel)
        disturbance = clients.submit(disturb)
        answers = list(clients.map(one, range(200)))
        disturbance.result()
    assert len(answers) == 200
    assert all(label == LABELS[version][colour] for colour, version, label in answers)
    eventually(lambda: service.live() == 2, "the new version is live")
    assert b"graft_engine_restarts_total 0.0" not in service.get("/metrics").body


def test_the_master_of_the_fronts_is_killed_and_nobody_notices(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """Its front goes on, with the requests that it holds and with new ones, until the next master's listens."""
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models")

    def named(name: str) -> list[int]:
        return [pid for pid, one in service.processes().items() if one.startswith(name)]

    (master,), (front,) = named("graft fronts"), named("graft front 0")
    os.kill(master, signal.SIGKILL)
    answered = 0
    end = time.monotonic() + 60
    while runs(front):
        assert time.monotonic() < end, service.log()
        try:
            assert service.classify(plain("green")).status == 200
            answered += 1
        except ConnectionResetError:
            continue  # a connection that was being set up on a front that stopped listening: clients try again
    assert answered > 10
    assert master not in named("graft fronts")
    assert front not in named("graft front 0")
    assert service.classify(plain("red")).json["results"][0]["label"] == "red"
    assert "the http front ended with exit code -9; another starts" in service.log()


def test_requests_wait_for_the_next_engine_when_all_are_dead(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """With its only engine killed, a request is answered by the one that replaces it."""
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models", engines=1)
    (engine,) = service.engines()
    os.kill(engine, signal.SIGKILL)
    answer = service.classify(plain("red"))
    assert (answer.status, answer.json["results"][0]["label"]) == (200, "red")
    assert engine not in service.engines()


def test_an_engine_that_hangs_is_replaced_and_its_requests_are_answered(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """A stopped engine counts as dead after --engine-timeout-s; what it held is answered by its successor."""
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models", engines=1, engine_timeout_s=2)
    (engine,) = service.engines()
    os.kill(engine, signal.SIGSTOP)
    answer = service.classify(plain("blue"))
    assert (answer.status, answer.json["results"][0]["label"]) == (200, "blue")
    assert engine not in service.engines()


@pytest.mark.parametrize("fault", ["wrong_scores", "wrong_pixels"])
def test_a_version_whose_goldens_disagree_is_refused_and_the_old_one_goes_on(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path, fault: str
):
    """A running service does not switch to a version that does not reproduce its goldens, and says why."""
    models = tmp_path / "models"
    version_factory(models, number=1)
    service = start_service(models)
    version_factory(models, number=2, class_names=RENAMED, **{fault: True})
    versions = eventually(
        lambda: (found := service.readyz().json["models"]["pets"]["versions"]).get("2", {}).get("error") and found,
        "the new version is refused",
    )
    assert "golden" in versions["2"]["error"]
    assert service.readyz().status == 200
    answer = service.classify(plain("blue"))
    assert (answer.json["version"], answer.json["results"][0]["label"]) == (1, "blue")


def test_another_resample_filter_in_the_manifest_is_noticed_by_the_pixels(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """A version that was trained with one filter and says another is refused: its golden pixels differ."""
    models = tmp_path / "models"
    version_factory(models, number=1)
    unfinished = version_factory.unfinished(models, number=2)
    manifest = json_format.Parse((unfinished / MANIFEST).read_text(encoding="utf-8"), Manifest())
    manifest.image.resample = "lanczos"
    write_manifest(unfinished, manifest)
    service = start_service(models)
    publish(unfinished, models, "pets")
    error = eventually(
        lambda: service.readyz().json["models"]["pets"]["versions"].get("2", {}).get("error"), "the version is refused"
    )
    assert "pixels differ" in error
    assert service.live() == 1


def test_a_refused_version_that_is_replaced_is_tried_again(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """Repairing a broken version's directory is enough for the service to take it up."""
    models = tmp_path / "models"
    version_factory(models, number=1)
    service = start_service(models)
    broken = version_factory(models, number=2, wrong_scores=True)
    eventually(lambda: service.readyz().json["models"]["pets"]["versions"].get("2", {}).get("error"), "refused")
    shutil.rmtree(broken)
    version_factory(models, number=2, class_names=RENAMED)
    eventually(lambda: service.live() == 2, "the repaired version is live")


def test_a_broken_highest_version_at_start_gives_way_to_the_one_below(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """A service that starts with a broken newest version serves the one below it."""
    models = tmp_path / "models"
    version_factory(models, number=1)
    version_factory(models, number=2, wrong_scores=True)
    assert start_service(models).live() == 1


def test_a_removed_version_rolls_back_and_a_removed_model_is_unloaded(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """Removing the newest version brings the one below back; removing all of them unloads the model."""
    models = tmp_path / "models"
    version_factory(models, number=1)
    newest = version_factory(models, number=2, class_names=RENAMED)
    version_factory(models, name="others")
    service = start_service(models)
    assert service.live() == 2
    shutil.rmtree(newest)
    eventually(lambda: service.live() == 1, "the version below is live")
    shutil.rmtree(models / "pets")
    eventually(lambda: not service.engines("pets/"), "its engines have ended")
    eventually(lambda: service.classify(plain("red"), "?model=pets").status == 404, "the model is forgotten")
    assert service.classify(plain("red"), "?model=others").status == 200


def test_sigterm_answers_what_was_accepted_and_exits_with_zero(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """Requests that are on their way when SIGTERM comes are answered; then nothing is left of the service.

    The engine is stopped until no front listens any more, so all of them are on their way then.
    """
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models", engine_timeout_s=120)
    (engine,) = service.engines()
    request = ClassifyRequest(images=[Image(data=plain(colour, size=(1500, 1500))) for colour in COLOURS] * 5)
    with grpc.insecure_channel(service.grpc) as channel:
        os.kill(engine, signal.SIGSTOP)
        try:
            asked = [ImageClassifierStub(channel).Classify.future(request, timeout=60) for _ in range(8)]
            eventually(lambda: b"graft_requests_in_flight 8.0" in service.get("/metrics").body, "all are accepted")
            service.process.send_signal(signal.SIGTERM)
            for front in (service.http.removeprefix("http://"), service.grpc):
                eventually(lambda front=front: not _listens(front), f"{front} is closed")
        finally:
            os.kill(engine, signal.SIGCONT)
        assert service.process.wait(60) == 0
    assert [[result.label for result in one.result().results] for one in asked] == [[*COLOURS] * 5] * 8


def _listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_a_service_that_is_to_end_is_not_ready_for_a_while_before_it_refuses_anybody(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """After SIGTERM a load balancer has --drain-delay-s to notice: /readyz says 503, and whoever comes is answered."""
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models", drain_delay_s=4)
    service.processes()
    told = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    eventually(lambda: service.readyz().status == 503, "not ready")
    assert service.classify(plain("red")).json["results"][0]["label"] == "red"
    with grpc.insecure_channel(service.grpc) as channel:
        assert _ask(service, ImageClassifierStub(channel), "blue", over_http=False) == (1, "blue")
    assert service.process.wait(60) == 0
    assert time.monotonic() - told > 4


def test_sigterm_resets_no_connection(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """Eight clients, each request on a connection of its own: until the port is closed to them, each is answered."""
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models")
    answered = threading.Semaphore(0)

    def ask() -> None:
        while True:
            try:
                assert service.classify(plain("green")).status == 200
            except ConnectionRefusedError:
                return
            answered.release()

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(ask) for _ in range(8)]
        for _ in range(40):
            assert answered.acquire(timeout=60)
        assert service.terminate() == 0
        for client in clients:
            client.result()


def test_fronts_and_engines_survive_their_supervisor_and_the_next_one_relieves_them(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """With the supervisor killed, requests are answered; a new one on the same ports takes over without a gap."""
    version_factory(tmp_path / "models")
    first = start_service(tmp_path / "models")
    orphans = [*first.engines(), *first.fronts()]
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    assert first.classify(plain("green")).json["results"][0]["label"] == "green"

    _succeed(first, tmp_path / "models")
    end = time.monotonic() + 60
    while any(map(runs, orphans)):
        assert time.monotonic() < end, first.log()
        try:
            assert first.classify(plain("green")).status == 200
        except ConnectionError:
            continue  # a connection that was being set up on a front that stopped listening: clients try again
    first.wait_ready()
    assert first.classify(plain("red")).json["results"][0]["label"] == "red"


def test_a_supervisor_that_ends_before_it_could_relieve_anybody_leaves_nobody(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """What it found goes on while its own models are not there, and ends with it; so the next one finds free ports."""
    version_factory(tmp_path / "models")
    first = start_service(tmp_path / "models")
    orphans = [*first.engines(), *first.fronts()]
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    announced = first.log().count("HTTP on")
    _succeed(first, tmp_path / "not-mounted")
    eventually(lambda: first.log().count("HTTP on") > announced, "the next supervisor is at work")
    assert first.classify(plain("green")).json["results"][0]["label"] == "green"
    assert first.terminate() == 0
    eventually(lambda: not any(map(runs, orphans)), "the orphans have ended", 1.0)
    _succeed(first, tmp_path / "models")
    first.wait_ready()
    assert first.classify(plain("red")).json["results"][0]["label"] == "red"


def _succeed(killed: Service, models: Path) -> None:
    """Starts the next supervisor with the ports and the run directory of one that was killed."""
    command = [sys.executable, "-m", "service", "--models", str(models), "--run-dir", str(killed.run_dir)]
    command += ["--http-port", killed.http.rsplit(":", 1)[1], "--grpc-port", killed.grpc.rsplit(":", 1)[1]]
    with (killed.run_dir / "log").open("ab") as log:
        killed.process = subprocess.Popen([*command, "--engines", "1"], stdout=log, stderr=log)


def test_a_second_service_on_the_same_ports_is_refused(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """A run directory belongs to one supervisor: the second says so and ends with 1, the first goes on."""
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models")
    again = [sys.executable, "-m", "service", "--models", str(tmp_path), "--run-dir", str(service.run_dir)]
    ended = subprocess.run(
        [*again, "--http-port", "0", "--grpc-port", "0"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, "another service" in ended.stderr) == (1, True)
    assert service.readyz().status == 200


@pytest.mark.parametrize("which", ["http", "grpc"])
def test_a_port_that_another_service_has_is_refused(
    which: str, version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """With a run directory of its own, too: the kernel would spread connections over both."""
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models")
    port = getattr(service, which).rpartition(":")[2]
    flags = {"http": "0", "grpc": "0"} | {which: port}
    command = [sys.executable, "-m", "service", "--models", str(tmp_path), "--run-dir", str(service.run_dir / "b")]
    command += [part for name, value in flags.items() for part in (f"--{name}-port", value)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in ended.stderr
    assert service.readyz().status == 200


def test_what_is_not_ours_stays_in_the_run_directory(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """Somebody may give a folder that he uses for more."""
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models")
    (service.run_dir / "2024").mkdir()
    assert service.terminate() == 0
    assert {entry.name for entry in service.run_dir.iterdir() if entry.is_dir()} == {"2024"}


def test_ipv6(version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path):
    """An address of colons is written in brackets, to both fronts and to people."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this host has no IPv6")
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models", host="::1")
    assert service.http.startswith("http://[::1]:")
    assert service.classify(plain("red")).json["results"][0]["label"] == "red"
    with grpc.insecure_channel(service.grpc) as channel:
        answer = ImageClassifierStub(channel).Classify(ClassifyRequest(images=[Image(data=plain("blue"))]), timeout=60)
    assert answer.results[0].label == "blue"


def test_state_is_told_to_people(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
):
    """Without any model the service is live, not ready, says so in words, and takes a model up when one appears."""
    models = tmp_path / "models"
    service = start_service(models, ready=False)
    answer = service.classify(plain("red"))
    assert (answer.status, answer.json["code"], answer.headers["Retry-After"]) == (503, "UNAVAILABLE", "1")
    assert service.readyz().status == 503
    version_factory(models)
    service.wait_ready()
    assert json.loads(service.readyz().body)["models"]["pets"]["versions"]["1"]["state"] == "AVAILABLE"
