"""`python -m benchmarks.bulk MODELS PHOTOS [--images 10000]`: a folder of images through the light client.

Makes a folder of so many links to the photos and classifies it by `python -m service.client --recursive --out`, --runs
times without interruption, and once killed by SIGKILL at --kills random moments and given again. The limit is what one
process per core does with the same photos and engine but no service and no client (see benchmarks/limit.py), measured
before and after every run, as machines change their speed; of the runs' shares of it the median counts. Memory is the
largest anonymous one of those seen every two seconds: a proportional set size (PSS) would take the kernel 20 ms to add.
Ends with 1 when a row is lost, doubled or different, or when client or service took over a tenth more memory in the
last third of a run than in the first.
"""

import argparse
import csv
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.footprint import anonymous_mb
from benchmarks.limit import Limit
from benchmarks.running import Running, serving
from service.published import list_versions

_PER_FOLDER: Final = 500
_LIMIT_S: Final = 5
_LIMIT_PHOTOS: Final = 200
_GROWTH: Final = 1.1
_EVERY_S: Final = 2.0
_LOOK_S: Final = 0.02
_ROOT: Final = Path(__file__).resolve().parent.parent


def main() -> int:
    """Measures and prints; returns 1 when something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, metavar="MODELS", help="models directory with one model")
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder with JPEGs, searched in depth")
    parser.add_argument("--images", type=int, default=10_000, metavar="N", help="default: 10000")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--kills", type=int, default=3, metavar="N", help="default: 3")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error(f"expected --runs to be at least 1, got {options.runs}")
    photos = sorted(file for file in options.photos.rglob("*") if file.suffix.lower() in {".jpg", ".jpeg"})
    if not photos:
        raise SystemExit(f"expected JPEGs below {options.photos}, found none")
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as made:
        folder = Path(made)
        _link(photos, folder / "images", options.images)
        with serving(options.models) as service:
            return _measure(options, folder, photos, service)


def _measure(options: argparse.Namespace, folder: Path, photos: Sequence[Path], service: Running) -> int:
    images, kills, address = options.images, options.kills, service.grpc
    (name,) = list_versions(options.models)
    version_dir = options.models / name / str(list_versions(options.models)[name][-1])
    sample = [photo.read_bytes() for photo in photos[:: max(1, len(photos) // _LIMIT_PHOTOS)][:_LIMIT_PHOTOS]]
    with Limit(version_dir, sample) as limit:
        limits, runs = [limit.images_per_s(_LIMIT_S)], []
        for number in range(options.runs):
            runs.append(_run(folder, f"{number}.csv", images, service))
            limits.append(limit.images_per_s(_LIMIT_S))
    for at in sorted(random.Random(0).sample(range(images // 20, images * 19 // 20), kills)):
        killed = _start(folder, address, "resumed.csv")
        _wait(killed, lambda at=at: _rows(folder / "resumed.csv") >= at)  # type: ignore[misc]
        killed.kill()
        killed.wait()
    again = _start(folder, address, "resumed.csv").wait()
    wholes, resumed = [_read(folder / f"{number}.csv") for number in range(len(runs))], _read(folder / "resumed.csv")
    shares = []
    for number, run in enumerate(runs):
        per_s, of = images / run.seconds, (limits[number] + limits[number + 1]) / 2
        shares.append(per_s / of)
        rows = wholes[number]
        sys.stdout.write(
            f"{images} images in {run.seconds:.1f} s: {per_s:.0f}/s, {shares[-1]:.2f} of the limit of {of:.0f}/s\n"
            f"memory in the first and in the last third: client {run.client_mb[0]:.0f} and {run.client_mb[1]:.0f} MB, "
            f"service {run.service_mb[0]:.0f} and {run.service_mb[1]:.0f} MB\n"
            f"rows: {len(rows)}, names: {_names(rows)}; exit code {run.code}\n"
        )
    sys.stdout.write(
        f"with {kills} kill -9: rows {len(resumed)}, names: {_names(resumed)}; exit code {again}; rows that differ: "
        f"{len(set(wholes[0]) ^ set(resumed))}\n"
        f"share of the limit, median of {len(runs)}: {statistics.median(shares):.3f}\n"
    )
    complete = all(len(rows) == _names(rows) == images for rows in wholes)
    same = all(sorted(rows) == sorted(resumed) for rows in wholes)
    ended = all(code == 0 for code in (again, *(run.code for run in runs)))
    # a run of a few seconds has no samples in a third, and says nothing of growth
    flat = not any(late > _GROWTH * early for run in runs for early, late in (run.client_mb, run.service_mb))
    return 0 if complete and same and ended and flat else 1


@dataclass(frozen=True)
class _Run:
    """One whole run; memory is of its first and of its last third."""

    seconds: float
    code: int
    client_mb: tuple[float, float]
    service_mb: tuple[float, float]


def _run(folder: Path, out: str, images: int, service: Running) -> _Run:
    began = time.monotonic()
    run = _start(folder, service.grpc, out)
    seen: list[tuple[int, float, float]] = []
    with suppress(subprocess.TimeoutExpired):
        run.wait(_EVERY_S / 2)
    while run.poll() is None:
        seen.append((_rows(folder / out), anonymous_mb(run.pid), anonymous_mb(service.pid)))
        with suppress(subprocess.TimeoutExpired):
            run.wait(_EVERY_S)
    seconds = time.monotonic() - began

    def largest(column: int, low: float, high: float) -> float:
        return max((one[column] for one in seen if low <= one[0] / images < high), default=math.nan)

    client, whole_service = ((largest(column, 0, 1 / 3), largest(column, 2 / 3, 2)) for column in (1, 2))
    return _Run(seconds, run.wait(), client, whole_service)


def _link(photos: Sequence[Path], folder: Path, count: int) -> None:
    """So many files, some hundred in each folder."""
    for number in range(count):
        path = folder / f"{number // _PER_FOLDER:03d}" / f"{number:06d}.jpg"
        if number % _PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.symlink_to(photos[number % len(photos)].resolve())


def _start(folder: Path, address: str, out: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "service.client", "--recursive", "images", "--out", out, "--grpc", address]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)


def _wait(run: "subprocess.Popen[bytes]", holds: Callable[[], bool]) -> None:
    """Until something holds, or the client has ended."""
    while not holds() and run.poll() is None:
        time.sleep(_LOOK_S)


def _names(rows: Sequence[tuple[str, ...]]) -> int:
    return len({path for path, *_ in rows})


def _rows(out: Path) -> int:
    return out.read_bytes().count(b"\r\n") - 1 if out.exists() else 0


def _read(out: Path) -> list[tuple[str, ...]]:
    with out.open(encoding="utf-8", newline="") as lines:
        return [tuple(row) for row in csv.reader(lines, strict=True)][1:]


if __name__ == "__main__":
    sys.exit(main())
