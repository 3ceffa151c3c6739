"""`python -m benchmarks.switches MODELS [--switches 20] [--kills 10]`: versions change and engines die under load.

Copies the highest version of the first model in MODELS as versions 1 to 4, each with labels of its own, and serves
them. While clients ask without a pause over HTTP and gRPC, it switches to another version and back, in turn, and kills
an engine after each switch until enough are killed. Prints answers, failed requests, answers with another version's
labels, how long switching took, the longest wait for an answer, and the proportional set size (PSS) of all processes
before and afterwards, with one version loaded and ten seconds at work. Ends with 1 when a request failed (a refusal is
one, too), an answer was mislabelled, or memory grew by more than 5 %.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from google.protobuf import json_format

from benchmarks.footprint import memory_mb
from benchmarks.running import Running, serving
from protos.classifier_pb2 import ClassifyRequest, Image
from protos.classifier_pb2_grpc import ImageClassifierStub
from protos.manifest_pb2 import Manifest
from service.manifest import MANIFEST
from service.policy import change_policy
from service.published import list_versions
from service.version import GOLDENS, write_manifest

_VERSIONS = (1, 2, 3, 4)
_NAME = "bench"
_KEEP_PREVIOUS_S = 5.0
_SETTLE_S = 10.0
_GROWTH = 1.05


class _Clients:
    """They ask until they are told to stop; half of them over HTTP, half over gRPC."""

    def __init__(self, http_address: str, grpc_address: str, image: bytes, count: int) -> None:
        self.answers = 0
        self.failures: Counter[str] = Counter()
        self.mislabelled = 0
        self.longest_s = 0.0
        self.doing = "nothing"  # what goes on meanwhile, for failures to be told apart by
        self._counting = threading.Lock()  # guards those above
        self._stop = threading.Event()
        self._image = image
        self._pool = ThreadPoolExecutor(count)
        for number in range(count):
            ask = self._over_http(http_address) if number % 2 else self._over_grpc(grpc_address)
            self._pool.submit(self._run, ask)

    def stop(self) -> None:
        self._stop.set()
        self._pool.shutdown()

    def _run(self, ask: Callable[[], tuple[int, str]]) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                version, label = ask()
            except grpc.RpcError as error:
                self._fail(f"{error.code().name}: {error.details()}")
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed request
                self._fail(f"{type(error).__name__}: {error}")
                continue
            with self._counting:
                self.answers += 1
                self.longest_s = max(self.longest_s, time.monotonic() - started)
                self.mislabelled += not label.startswith(f"{version}:")

    def _fail(self, reason: str) -> None:
        with self._counting:
            self.failures[f"during {self.doing}: {reason}"[:200]] += 1

    def _over_http(self, address: str) -> Callable[[], tuple[int, str]]:
        connection = http.client.HTTPConnection(address, timeout=60)

        def ask() -> tuple[int, str]:
            connection.request("POST", "/classify", self._image, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise OSError(f"{response.status} {body[:200]!r}")
            answer = json.loads(body)
            return answer["version"], answer["results"][0]["label"]

        return ask

    def _over_grpc(self, address: str) -> Callable[[], tuple[int, str]]:
        stub = ImageClassifierStub(grpc.insecure_channel(address))  # type: ignore[no-untyped-call]  # generated
        request = ClassifyRequest(images=[Image(data=self._image)])

        def ask() -> tuple[int, str]:
            response = stub.Classify(request, timeout=60)
            return response.version, response.results[0].label

        return ask


def main() -> int:
    """Runs it all; returns 1 when something was lost or mislabelled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, metavar="MODELS", help="models directory with a version to copy")
    parser.add_argument("--switches", type=int, default=20, metavar="N", help="default: 20")
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="default: 10")
    parser.add_argument("--clients", type=int, default=32, metavar="N", help="default: 32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        models = Path(folder)
        image = _copy_versions(options.models, models)
        _pin(models, 1)
        with serving(models, ("--keep-previous-s", str(_KEEP_PREVIOUS_S))) as service:
            clients = _Clients(service.http.removeprefix("http://"), service.grpc, image, options.clients)
            try:
                return _disturb(options, models, service, clients)
            finally:
                clients.stop()


def _disturb(options: argparse.Namespace, models: Path, service: Running, clients: _Clients) -> int:
    url = service.http
    _until(lambda: clients.answers > 50 * options.clients, "warm")
    time.sleep(_SETTLE_S)  # as afterwards: an engine gives some of what it loaded with back in its first seconds
    before = sum(memory_mb(service.pid).values())
    live = 1
    loads: list[float] = []
    rollbacks: list[float] = []
    for number in range(max(options.switches, options.kills)):
        if number < options.switches:
            back = number % 2 == 1
            target = 1 if back else _VERSIONS[1 + number // 2 % 3]  # another one each time, so it must be loaded
            clients.doing = "a rollback" if back else "a new version"
            started = time.monotonic()
            _pin(models, target)
            _until(lambda target=target: _live(url) == target, f"version {target}")  # type: ignore[misc]
            (rollbacks if back else loads).append(time.monotonic() - started)
            live = target
        if number < options.kills:
            clients.doing = "a kill"
            os.kill(random.choice(_engines(service.run_dir)), signal.SIGKILL)
        answered = clients.answers
        _until(lambda answered=answered: clients.answers > answered + 5 * options.clients, "answers")  # type: ignore[misc]
    time.sleep(_KEEP_PREVIOUS_S + _SETTLE_S)  # engines that were replaced have loaded, the version before has ended
    _until(lambda: _versions(url) == [live], "one version loaded")
    after = sum(memory_mb(service.pid).values())
    lines = (
        f"{options.switches} switches, {options.kills} kill -9, {options.clients} clients: {clients.answers} answers",
        f"failed requests: {sum(clients.failures.values())}",
        f"answers with another version's labels: {clients.mislabelled}",
        f"longest wait for an answer: {clients.longest_s:.2f} s",
        *(
            f"{what} to answers: median {statistics.median(took):.2f} s, longest {max(took):.2f} s"
            for what, took in (("new version", loads), ("rollback", rollbacks))
            if took
        ),
        f"PSS of all processes: {before:.0f} MB before, {after:.0f} MB after ({after / before - 1:+.1%})",
        *(f"{count} {reason}" for reason, count in clients.failures.most_common(8)),
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if clients.failures or clients.mislabelled or after > _GROWTH * before else 0


def _copy_versions(source: Path, models: Path) -> bytes:
    """Versions that differ in nothing but their labels, which begin with the version's number; returns an image."""
    name, numbers = next(iter(list_versions(source).items()))
    for number in _VERSIONS:
        path = models / _NAME / str(number)
        shutil.copytree(source / name / str(numbers[-1]), path)
        manifest = json_format.Parse((path / MANIFEST).read_text(encoding="utf-8"), Manifest())
        manifest.name, manifest.version = _NAME, number
        manifest.class_names[:] = [f"{number}:{label}" for label in manifest.class_names]
        write_manifest(path, manifest)
    return next(file for file in sorted((path / GOLDENS).iterdir()) if file.suffix == ".jpg").read_bytes()


def _pin(models: Path, version: int) -> None:
    change_policy(models, _NAME, lambda policy, _: policy.labelled("stable", version))


def _state(url: str) -> dict[str, object]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request("GET", "/readyz")
        model: dict[str, object] = json.loads(connection.getresponse().read())["models"].get(_NAME, {})
        return model
    finally:
        connection.close()


def _live(url: str) -> object:
    return _state(url).get("live", 0)


def _versions(url: str) -> list[int]:
    versions: dict[str, dict[str, str]] = _state(url)["versions"]  # type: ignore[assignment]
    return [int(number) for number, one in versions.items() if one["state"] != "END"]


def _engines(run_dir: Path) -> list[int]:
    found = []
    for pid in map(int, json.loads((run_dir / "children.json").read_text(encoding="ascii"))["born"]):
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(b"graft engine"):
            found.append(pid)
    return found


def _until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 300
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"never: {what}")
        time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main())
