"""What serving costs: `python -m benchmarks.serving MODELS PHOTOS [--out FILE]`, or `make bench`.

MODELS holds one model; PHOTOS is a folder with JPEGs. The limit is what the machine does without any service: one
process per core, each on its own core, decodes four images and runs them, by the same decode and engine. Then the
service, on the same machine as the load generator, with the answer cache off: one image per request over HTTP and gRPC
on more and more connections, many images per request, 12-megapixel photos, tensors, and requests so small that only the
transport is left. The limit is measured before, between and after; every number is the median of the rounds.
"""

import argparse
import io
import json
import multiprocessing
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from benchmarks.footprint import memory_mb, processes_below, wait_until_ready
from benchmarks.load import Load, call, post
from protos import tensorflow_serving_pb2 as tfs
from protos.classifier_pb2 import ClassifyRequest
from protos.classifier_pb2 import Image as ImageMessage
from service import host
from service.engine.runtime import candidates, load
from service.image import decode
from service.published import list_versions
from service.version import read_version

_PHOTOS: Final = 200
_BATCH: Final = 4
_CONNECTIONS: Final = (1, 8, 32, 128)
_MANY: Final = 16
_WARM_S: Final = 3
_CLASSIFY: Final = "/graft.v1.ImageClassifier/Classify"
_PREDICT: Final = "/tensorflow.serving.PredictionService/Predict"
_JPEG: Final = "image/jpeg"


@dataclass(frozen=True)
class Row:
    """One line of the table; `limit` is images/s without a service, of the same images."""

    what: str
    connections: int
    load: Load
    images: int
    cpu_ms: float
    pss_mb: float
    limit: float


def main() -> None:
    """Measures, prints, and writes a page where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", type=Path, metavar="MODELS", help="models directory with one model")
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder with JPEGs, searched in depth")
    parser.add_argument("--seconds", type=int, default=8, help="of each measurement (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="of everything (default: 3)")
    parser.add_argument("--out", type=Path, help="Markdown file to write the page to")
    asked = parser.parse_args()
    photos = _photos(asked.photos)
    rounds: list[list[Row]] = []
    with _service(asked.models) as service:
        for number in range(asked.rounds):
            rounds.append(list(_round(service, asked.models, photos, asked.seconds)))
            sys.stderr.write(f"round {number + 1} of {asked.rounds}\n")
    page = _page(rounds, asked.models)
    sys.stdout.write(page)
    if asked.out:
        asked.out.write_text(page, encoding="utf-8")


# -- what is measured


@dataclass(frozen=True)
class _Service:
    pid: int
    http: str
    grpc: str


def _round(service: _Service, models: Path, photos: Sequence[bytes], seconds: int) -> Iterator[Row]:
    version_dir = _version_dir(models)
    side = read_version(version_dir).spec.side_px
    large, tiny = [_large()], [_tiny()]
    pixels = [decode(photo, read_version(version_dir).spec).tobytes() for photo in photos[:32]]
    limits = {
        "photos": limit(version_dir, photos, seconds),
        "large": limit(version_dir, large, seconds),
        "tiny": limit(version_dir, tiny, seconds),
        "pixels": limit(version_dir, photos, seconds, decodes=False),
    }

    def http(bodies: Sequence[bytes], kind: str, connections: int) -> Callable[[int], Load]:
        return lambda for_s: post(f"{service.http}/classify", bodies, kind, connections, for_s)

    def grpc(method: str, messages: Sequence[bytes], connections: int) -> Callable[[int], Load]:
        return lambda for_s: call(service.grpc, method, messages, connections, for_s)

    messages = [_message([photo]) for photo in photos]
    tensors = [_predict(_name(models), one, side) for one in pixels]
    for connections in _CONNECTIONS:
        yield _row(service, "HTTP", connections, http(photos, _JPEG, connections), 1, limits["photos"], seconds)
        yield _row(service, "gRPC", connections, grpc(_CLASSIFY, messages, connections), 1, limits["photos"], seconds)
    groups = [photos[start : start + _MANY] for start in range(0, len(photos) - _MANY, _MANY)]
    cases: list[tuple[str, Callable[[int], Load], int, str]] = [
        (f"HTTP, {_MANY} images a request", http([_multipart(one) for one in groups], _FORM, 8), _MANY, "photos"),
        (f"gRPC, {_MANY} images a request", grpc(_CLASSIFY, [_message(one) for one in groups], 8), _MANY, "photos"),
        ("HTTP, 12 megapixels", http(large, _JPEG, 8), 1, "large"),
        ("gRPC, 12 megapixels", grpc(_CLASSIFY, [_message(large)], 8), 1, "large"),
        ("HTTP, 8 x 8 pixels", http(tiny, _JPEG, 32), 1, "tiny"),
        ("gRPC, 8 x 8 pixels", grpc(_CLASSIFY, [_message(tiny)], 32), 1, "tiny"),
        ("TensorFlow Serving Predict, pixels", grpc(_PREDICT, tensors, 32), 1, "pixels"),
    ]
    for what, run, images, of in cases:
        yield _row(service, what, 8 if of == "large" or images > 1 else 32, run, images, limits[of], seconds)


def _row(  # noqa: PLR0917 - one caller's table
    service: _Service,
    what: str,
    connections: int,
    run: Callable[[int], Load],
    images: int,
    of: float,
    seconds: int,
) -> Row:
    run(_WARM_S)
    before = _cpu_s(service.pid)
    seen = run(seconds)
    spent_ms = 1e3 * (_cpu_s(service.pid) - before) / max(1.0, seen.per_s * seconds * images)
    row = Row(what, connections, seen, images, spent_ms, sum(memory_mb(service.pid).values()), of)
    sys.stderr.write(f"{what}, {connections}: {seen.per_s * images:.0f} images/s of {of:.0f}\n")
    return row


def limit(version_dir: Path, images: Sequence[bytes], seconds: int, *, decodes: bool = True) -> float:
    """Images/s of one process per core that do nothing but decode and infer."""
    context = multiprocessing.get_context("spawn")
    queue: Queue[float] = context.Queue()
    cores = sorted(os.sched_getaffinity(0))
    barrier = context.Barrier(len(cores))
    started = [
        context.Process(target=_work, args=(version_dir, images, seconds, core, decodes, barrier, queue))
        for core in cores
    ]
    for process in started:
        process.start()
    per_s = sum(queue.get() for _ in started)
    for process in started:
        process.join()
    return per_s


def _work(  # noqa: PLR0917 - the start of a process
    version_dir: Path,
    images: Sequence[bytes],
    seconds: int,
    core: int,
    decodes: bool,
    barrier: Any,  # noqa: ANN401 - multiprocessing's own types are loose
    queue: "Queue[float]",
) -> None:
    os.sched_setaffinity(0, {core})
    version = read_version(version_dir)
    runtime = load(version, candidates("auto", host.cpu_flags(), host.has_gpu()), threads=1)
    batch = np.stack([decode(images[at % len(images)], version.spec) for at in range(_BATCH)])
    done, at = 0, 97 * core
    barrier.wait()
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        if decodes:
            batch = np.stack([decode(images[(at + more) % len(images)], version.spec) for more in range(_BATCH)])
        runtime.predict(batch)
        at += _BATCH
        done += _BATCH
    queue.put(done / (time.monotonic() - start))


@contextmanager
def _service(models: Path) -> Iterator[_Service]:
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as run_dir:
        command = [sys.executable, "-m", "service", "--models", str(models), "--run-dir", run_dir]
        command += ["--http-port", "0", "--grpc-port", "0", "--cache-bytes", "0", "--max-queue", "4096"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            wait_until_ready(Path(run_dir), process)
            address = json.loads((Path(run_dir) / "address.json").read_text(encoding="ascii"))
            yield _Service(process.pid, address["http"], address["grpc"])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _cpu_s(supervisor: int) -> float:
    ticks = 0
    for pid in processes_below(supervisor):
        try:
            status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        except OSError:  # it has just ended
            continue
        ticks += int(status[11]) + int(status[12])
    return ticks / os.sysconf("SC_CLK_TCK")


# -- what is sent


_BOUNDARY: Final = "graft-benchmark"
_FORM: Final = f"multipart/form-data; boundary={_BOUNDARY}"


def _photos(folder: Path) -> list[bytes]:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in {".jpg", ".jpeg"})
    if not files:
        raise SystemExit(f"expected JPEGs below {folder}, found none")
    step = max(1, len(files) // _PHOTOS)
    return [file.read_bytes() for file in files[::step][:_PHOTOS]]


def _large() -> bytes:
    """A photo-like JPEG of 4000 x 3000 pixels."""
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((4000, 3000))
    grain = random.integers(-12, 13, (3000, 4000, 1), dtype=np.int16)
    return _encoded(Image.fromarray(np.clip(np.asarray(smooth, np.int16) + grain, 0, 255).astype(np.uint8)))


def _tiny() -> bytes:
    return _encoded(Image.new("RGB", (8, 8), (200, 30, 40)))


def _encoded(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _message(images: Sequence[bytes]) -> bytes:
    return ClassifyRequest(images=[ImageMessage(data=image) for image in images]).SerializeToString()


def _multipart(images: Sequence[bytes]) -> bytes:
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{at}.jpg"\r\n'
        f"Content-Type: {_JPEG}\r\n\r\n".encode()
        + image
        + b"\r\n"
        for at, image in enumerate(images)
    ]
    return b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()


def _predict(name: str, pixels: bytes, side: int) -> bytes:
    request = tfs.PredictRequest(model_spec=tfs.ModelSpec(name=name, signature_name="serving_default"))
    tensor = request.inputs["images"]
    tensor.dtype, tensor.tensor_content = tfs.DT_UINT8, pixels
    for size in (1, side, side, 3):
        tensor.tensor_shape.dim.add(size=size)
    return request.SerializeToString()


def _name(models: Path) -> str:
    (name,) = sorted(folder.name for folder in models.iterdir() if folder.is_dir())
    return name


def _version_dir(models: Path) -> Path:
    return models / _name(models) / str(max(list_versions(models, _name(models))))


# -- what is told


def _page(rounds: Sequence[Sequence[Row]], models: Path) -> str:
    manifest = read_version(_version_dir(models)).manifest
    by_case: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in (row for rows in rounds for row in rows):
        by_case[row.what, row.connections].append(row)
    lines = [
        "# Benchmarks of serving",
        "",
        f"`make bench` on {time.strftime('%Y-%m-%d')}: {_machine()}. {manifest.recipe.backbone}, "
        f"{manifest.image.side_px} px. The limit is the same decode and engine in one process per core, without a "
        "service; the load generator runs on the same machine and takes its share of it. Medians of "
        f"{len(rounds)} rounds; the range of the limit over them is in brackets. CPU is the whole "
        "service's, per image.",
        "",
        "| what | connections | images/s | of the limit | limit | p50 ms | p99 ms | errors | CPU ms | PSS MB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (what, connections), rows in by_case.items():
        limits = [row.limit for row in rows]
        cells = (
            what,
            connections,
            f"{statistics.median(row.load.per_s * row.images for row in rows):.0f}",
            f"{statistics.median(row.load.per_s * row.images / row.limit for row in rows):.2f}",
            f"{statistics.median(limits):.0f} ({min(limits):.0f}-{max(limits):.0f})",
            f"{statistics.median(row.load.p50_ms for row in rows):.1f}",
            f"{statistics.median(row.load.p99_ms for row in rows):.1f}",
            sum(row.load.errors for row in rows),
            f"{statistics.median(row.cpu_ms for row in rows):.2f}",
            f"{statistics.median(row.pss_mb for row in rows):.0f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _machine() -> str:
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    packages = ", ".join(f"{name} {installed(name)}" for name in ("openvino", "pillow", "gunicorn", "grpcio"))
    return f"{len(os.sched_getaffinity(0))} cores, {processor}; Python {platform.python_version()}, {packages}"


if __name__ == "__main__":
    main()
