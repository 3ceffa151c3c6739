"""What serving costs: `python -m benchmarks.serving MODELS PHOTOS [--out FILE]`, or `make bench`.

MODELS holds one model each; PHOTOS is a folder with JPEGs. The limit is what the machine does without any service: one
process per core, each on its own core, decodes four images and runs them, by the same decode and engine
(benchmarks/limit.py). Then the service, on the same machine as the load generator, with the answer cache off. The limit
is taken before and after everything that is compared with it; every number is the median of the rounds. A null model,
which computes next to nothing, says what each protocol costs. Other model servers are measured in between, where they
are there. Every number is kept in a file as it comes, so a run that is stopped can still be told (`--told FILE`).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import bodies, rivals
from benchmarks.arrivals import HttpSender, Loop, open_loop
from benchmarks.footprint import LOCAL, memory_mb, processes_below
from benchmarks.limit import Limit
from benchmarks.load import Load, call, post
from benchmarks.running import Running, serving
from benchmarks.serving_page import page
from service.image import decode
from service.published import list_versions
from service.version import Version, read_version

_CONNECTIONS: Final = (1, 8, 32, 128)
_MANY: Final = 16
_ARRIVALS: Final = (0.5, 0.8)
_LIMIT: Final = "the limit"
_LIMIT_S: Final = 2
_WARM_S: Final = 1


@dataclass(frozen=True)
class Case:
    """One load.

    Attributes:
        table: of the page that it belongs to.
        what: is asked, over which protocol.
        connections: clients that wait for their answers.
        images: in one request.
        run: loads for so many seconds.
        limit: images/s without a service, of the same images; None where it says nothing.
    """

    table: str
    what: str
    connections: int
    images: int
    run: Callable[[int], Load]
    limit: Callable[[], float] | None


@dataclass(frozen=True)
class Row:
    """What came of a case.

    Attributes:
        table: see Case.
        what: see Case.
        connections: see Case.
        per_s: images per second.
        p50_ms: of requests.
        p99_ms: of requests.
        errors: requests that were not answered well.
        cpu_ms: of the whole service, per image.
        pss_mb: proportional set size of all its processes.
        limit: images per second, mean of before and after; 0 for none.
        alone_ms: one image in-process, decoded and run, on an idle machine; 0 where it was not taken.
        stolen: share of the machine's time that its host gave to others meanwhile, the limit's included.
        times: how many times its images/s the service had right before and after, by protocol and engine; others' only.
    """

    table: str
    what: str
    connections: int
    per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_ms: float
    pss_mb: float
    limit: float = 0.0
    alone_ms: float = 0.0
    stolen: float = 0.0
    times: dict[str, float] = field(default_factory=dict)


class Bench:
    """Measures in rounds and keeps what it has.

    Args:
        photos: what is sent.
        seconds: of each measurement.
        told: file that rows are appended to.
    """

    def __init__(self, photos: Sequence[bytes], seconds: int, told: Path) -> None:
        self._photos = photos
        self._seconds = seconds
        self._told = told

    def backbone(self, models: Path, connections: Sequence[int], *, whole: bool, engine_wanted: str = "") -> None:
        """A real model: photos over HTTP and gRPC; with `whole`, all else that depends on the model, too.

        With `engine_wanted` nothing where another engine serves it.
        """
        name, version = _only(models)
        with serving(models, _FLAGS) as service, Limit(version.path, self._photos) as limit:
            engine = _engine(service, version)
            if engine_wanted not in {"", engine}:
                sys.stderr.write(f"left out: expected {models} to be served by {engine_wanted}, found {engine}\n")
                return
            for case in self._photo_cases(version, engine, service, connections, limit, whole=whole):
                self._measure(case, service, limit)
            if whole:
                for case in self._tensor_cases(name, version, service, limit):
                    self._measure(case, service, limit)
        if whole:
            large = [bodies.large_photo()]
            with serving(models, _FLAGS) as service, Limit(version.path, large) as limit:
                for protocol, run in _both(service, large, 8):
                    case = Case(_PHOTOS, f"{protocol}, 12 megapixels", 8, 1, run, lambda: limit.images_per_s(_LIMIT_S))
                    self._measure(case, service, limit)

    def protocols(self, models: Path) -> None:
        """The null model in every protocol."""
        name, version = _only(models)
        with serving(models, _FLAGS) as service:
            for connections in (1, 32):
                for what, run in _protocols(name, version.spec.side_px, service, connections, self._photos[0]):
                    self._measure(Case(_PROTOCOLS, what, connections, 1, run, None), service, None, self._seconds // 2)

    def others(self, models: Path, quantized: Path | None) -> None:
        """Other servers, each between two measurements of our limit and of the service under the same load."""
        there = [(name, engine) for name, engine in rivals.SERVERS if rivals.there(name)]
        if not there:
            return
        with Limit(_only(models)[1].path, self._photos) as limit:
            before = self._ours(models, quantized, limit)
            for name, engine in there:
                machine = _machine_s()
                seen = rivals.measure(name, engine, self._seconds)
                after = self._ours(models, quantized, limit)
                ours = {what: (before[what] + after[what]) / 2 for what in before.keys() & after.keys()}
                self._keep_other(seen, ours, _stolen(machine))
                before = after

    def _keep_other(self, seen: Sequence[rivals.Rival], ours: Mapping[str, float], stolen: float) -> None:
        for one in seen:
            row = Row(
                f"Others, {'OpenVINO' if one.engine == 'openvino' else 'TensorFlow'}",
                one.name,
                one.connections,
                one.per_s,
                one.p50_ms,
                one.p99_ms,
                one.errors,
                one.cpu_ms,
                one.pss_mb,
                ours[_LIMIT],
                stolen=stolen,
                times={
                    what: per_s / one.per_s
                    for what, per_s in ours.items()
                    if what != _LIMIT and one.connections == rivals.MOST and one.per_s
                },
            )
            self._keep(row)

    def _ours(self, models: Path, quantized: Path | None, limit: Limit) -> dict[str, float]:
        """Images per second: of the limit, and of a service that is started for it, by protocol and engine."""
        found = {_LIMIT: limit.images_per_s(_LIMIT_S)}
        for served in (models, quantized) if quantized else (models,):
            with serving(served, _FLAGS) as service:
                engine = _engine(service, _only(served)[1])
                for protocol, run in _both(service, self._photos, rivals.MOST):
                    run(_WARM_S)
                    found[f"{protocol}, {engine}"] = run(self._seconds).per_s
        return found

    def _photo_cases(
        self, version: Version, engine: str, service: Running, connections: Sequence[int], limit: Limit, *, whole: bool
    ) -> Iterator[Case]:
        def batches() -> float:
            return limit.images_per_s(_LIMIT_S)

        network = f"{version.manifest.recipe.backbone}, {engine}"
        for clients in connections:
            for protocol, run in _both(service, self._photos, clients):
                yield Case(_PHOTOS, f"{protocol}, {network}", clients, 1, run, batches)
        if whole:
            for share in _ARRIVALS:
                run = partial(_arriving, service, self._photos, share, limit)
                yield Case(_PHOTOS, f"HTTP, arriving at {share:g} of the limit", 0, 1, run, batches)
            groups = [self._photos[at : at + _MANY] for at in range(0, len(self._photos) - _MANY + 1, _MANY)]
            forms = [bodies.multipart(group) for group in groups]
            messages = [bodies.classify(group) for group in groups]
            many = f"{_MANY} photos a request"
            url = f"{service.http}/classify"
            yield Case(_PHOTOS, f"HTTP, {many}", 8, _MANY, lambda s: post(url, forms, bodies.FORM, 8, s), batches)
            yield Case(
                _PHOTOS,
                f"gRPC, {many}",
                8,
                _MANY,
                lambda s: call(service.grpc, bodies.CLASSIFY, messages, 8, s),
                batches,
            )

    def _tensor_cases(self, name: str, version: Version, service: Running, limit: Limit) -> Iterator[Case]:
        def inference() -> float:
            return limit.images_per_s(_LIMIT_S, decodes=False)

        side = version.spec.side_px
        pixels = [decode(photo, version.spec).tobytes() for photo in self._photos[:32]]
        for images, clients in ((1, 32), (_MANY, 8)):
            messages = [
                bodies.predict_pixels(name, pixels[at : at + images], side)
                for at in range(0, len(pixels) - images + 1, images)
            ]
            yield Case(
                _TENSORS,
                f"TensorFlow Serving Predict over gRPC, {images} a request",
                clients,
                images,
                lambda s, messages=messages, clients=clients: call(  # type: ignore[misc]  # bound here and now
                    service.grpc, bodies.PREDICT, messages, clients, s
                ),
                inference,
            )

    def _measure(self, case: Case, service: Running, limit: Limit | None, seconds: int = 0) -> None:
        seconds = seconds or self._seconds
        case.run(_WARM_S)
        machine = _machine_s()
        before = case.limit() if case.limit else 0.0
        cpu = _cpu_s(service.pid)
        seen = case.run(seconds)
        images = max(1.0, seen.per_s * seconds * case.images)
        cpu_ms = 1e3 * (_cpu_s(service.pid) - cpu) / images
        pss_mb = sum(memory_mb(service.pid).values())
        mean = (before + case.limit()) / 2 if case.limit else 0.0
        stolen = _stolen(machine)
        alone = limit.one_ms(_LIMIT_S) if limit and case.connections == 1 else 0.0
        self._keep(
            Row(
                case.table,
                case.what,
                case.connections,
                seen.per_s * case.images,
                seen.p50_ms,
                seen.p99_ms,
                seen.errors,
                cpu_ms,
                pss_mb,
                mean,
                alone,
                stolen,
            )
        )

    def _keep(self, row: Row) -> None:
        of = f" = {row.per_s / row.limit:.2f} of the limit" if row.limit else ""
        sys.stderr.write(
            f"{time.strftime('%H:%M:%S')} {row.table}: {row.what}, {row.connections}: {row.per_s:.0f} images/s{of}, "
            f"p50 {row.p50_ms:.1f} ms, errors {row.errors}, stolen {row.stolen:.2f}\n"
        )
        with self._told.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")


_PHOTOS: Final = "Photos"
_TENSORS: Final = "Pixels"
_PROTOCOLS: Final = "Protocols"
_FLAGS: Final = ("--cache-bytes", "0", "--max-queue", "4096", "--target-p99-ms", "60000")


def main() -> None:
    """Measures, prints, and writes a page where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", type=Path, metavar="MODELS", help="models directory with one model")
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder with JPEGs, searched in depth")
    parser.add_argument("--larger", type=Path, help="models directory with one larger model")
    parser.add_argument("--quantized", type=Path, help="models directory with the model of MODELS in 8 bits, too")
    parser.add_argument("--null", type=Path, help="models directory with the null model (benchmarks/null_model.py)")
    parser.add_argument("--seconds", type=int, default=6, help="of each measurement (default: 6)")
    parser.add_argument("--rounds", type=int, default=3, help="of all but other servers (default: 3)")
    parser.add_argument("--rival-rounds", type=int, default=2, help="of other servers (default: 2)")
    parser.add_argument("--told", type=Path, default=Path("var/bench/serving.jsonl"), help="file to keep numbers in")
    parser.add_argument("--tell-only", action="store_true", help="measure nothing, write the page of what was kept")
    parser.add_argument("--note", default="", help="a sentence for the page, such as what disturbed the run")
    parser.add_argument("--out", type=Path, help="Markdown file to write the page to")
    asked = parser.parse_args()
    if not asked.tell_only:
        asked.told.parent.mkdir(parents=True, exist_ok=True)
        asked.told.unlink(missing_ok=True)
        bench = Bench(bodies.photos(asked.photos), asked.seconds, asked.told)
        rounds = max(asked.rounds, asked.rival_rounds)
        for number in range(rounds):
            sys.stderr.write(f"round {number + 1} of {rounds}\n")
            if number < asked.rounds:
                _round(bench, asked.models, asked.larger, asked.quantized, asked.null)
            if number < asked.rival_rounds:
                with _going_on():
                    bench.others(asked.models, asked.quantized)
    rows = [Row(**json.loads(line)) for line in asked.told.read_text(encoding="utf-8").splitlines()]
    written = page(rows, read_version(_only(asked.models)[1].path), asked.note)
    sys.stdout.write(written)
    if asked.out:
        asked.out.write_text(written, encoding="utf-8")


def _round(bench: Bench, models: Path, larger: Path | None, quantized: Path | None, null: Path | None) -> None:
    with _going_on():
        bench.backbone(models, _CONNECTIONS, whole=True)
    if larger:
        with _going_on():
            bench.backbone(larger, (32,), whole=False)
    if quantized:
        with _going_on():
            bench.backbone(quantized, (1, 32), whole=False, engine_wanted="openvino/int8")
    if null:
        with _going_on():
            bench.protocols(null)


@contextmanager
def _going_on() -> Iterator[None]:
    """One part that fails does not end the run; its rows are missing."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, the other parts are worth having
        sys.stderr.write(f"left out: {type(error).__name__}: {error}\n")


def _both(service: Running, images: Sequence[bytes], clients: int) -> list[tuple[str, Callable[[int], Load]]]:
    messages = [bodies.classify([image]) for image in images]
    return [
        ("HTTP", lambda s: post(f"{service.http}/classify", images, bodies.JPEG, clients, s)),
        ("gRPC", lambda s: call(service.grpc, bodies.CLASSIFY, messages, clients, s)),
    ]


def _arriving(service: Running, images: Sequence[bytes], share: float, limit: Limit, seconds: int) -> Load:
    """Open loop over HTTP: requests at random moments, whatever became of those before, at a share of the limit."""
    sender = HttpSender(Loop(), service.http, images)
    seen = open_loop(sender, share * limit.images_per_s(1), seconds)
    sender.close()
    sys.stderr.write(f"the load generator was late by {1e3 * seen.lag_s:.0f} ms at most\n")
    others = seen.codes.total() - len(seen.good_s)
    return Load(seen.per_s, seen.percentile_ms(0.5), seen.percentile_ms(0.99), others)


def _protocols(
    name: str, side_px: int, service: Running, clients: int, photo: bytes
) -> Iterator[tuple[str, Callable[[int], Load]]]:
    tiny = bodies.tiny_photo()
    pixels = bytes(side_px * side_px * 3)
    over_http = [
        ("HTTP /classify, an image", "/classify", tiny, bodies.JPEG),
        ("HTTP /classify, a form", "/classify", bodies.multipart([tiny]), bodies.FORM),
        ("TensorFlow Serving REST, JSON", f"/v1/models/{name}:predict", bodies.predict_json(tiny), bodies.JSON),
        ("Open Inference REST, JSON", f"/v2/models/{name}/infer", bodies.infer_json(tiny), bodies.JSON),
    ]
    for what, path, body, kind in over_http:
        yield what, lambda s, path=path, body=body, kind=kind: post(f"{service.http}{path}", [body], kind, clients, s)  # type: ignore[misc]
    over_grpc = [
        ("gRPC Classify", bodies.CLASSIFY, bodies.classify([tiny])),
        ("gRPC Classify, a photo", bodies.CLASSIFY, bodies.classify([photo])),
        ("TensorFlow Serving gRPC, an image", bodies.PREDICT, bodies.predict_bytes(name, [tiny])),
        ("TensorFlow Serving gRPC, pixels", bodies.PREDICT, bodies.predict_pixels(name, [pixels], side_px)),
        ("Open Inference gRPC, an image", bodies.INFER, bodies.infer_bytes(name, tiny)),
        ("Open Inference gRPC, pixels", bodies.INFER, bodies.infer_pixels(name, pixels, side_px)),
    ]
    for what, method, message in over_grpc:
        yield what, lambda s, method=method, message=message: call(service.grpc, method, [message], clients, s)  # type: ignore[misc]


def _engine(service: Running, version: Version) -> str:
    """Engine and precision that the service has chosen."""
    with LOCAL.open(f"{service.http}/readyz") as answer:
        model = json.load(answer)["models"][version.name]
    return str(model["versions"][str(version.number)]["engine"])


def _only(models: Path) -> tuple[str, Version]:
    """The one model of a models directory, and its latest version."""
    (name,) = sorted(folder.name for folder in models.iterdir() if folder.is_dir())
    return name, read_version(models / name / str(max(list_versions(models)[name])))


def _machine_s() -> tuple[float, float]:
    """Seconds of all cores since the start, and those of them that the host gave to others."""
    ticks = [int(one) for one in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return sum(ticks), ticks[7]


def _stolen(since: tuple[float, float]) -> float:
    now = _machine_s()
    return (now[1] - since[1]) / max(1.0, now[0] - since[0])


def _cpu_s(supervisor: int) -> float:
    """CPU seconds of a process and everything below it."""
    spent_ns = 0
    for pid in processes_below(supervisor):
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                spent_ns += int(thread.read_text(encoding="ascii").split()[0])
            except OSError:  # it has just ended
                continue
    return spent_ns / 1e9


if __name__ == "__main__":
    main()
