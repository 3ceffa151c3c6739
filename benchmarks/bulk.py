"""`python -m benchmarks.bulk MODELS PHOTOS [--images 10000]`: a folder of images through the light client.

Makes a folder of so many links to the photos and classifies it by `python -m service.client --recursive --out`, once
without interruption, and once killed by SIGKILL at --kills random moments and given again. The limit is what one
process per core does with the same photos and engine but no service and no client (see benchmarks/limit.py), measured
before, after, and three times between, as machines change their speed: the client is then stopped by SIGSTOP, what it
has asked is still answered, and from there the clock stands still until the client goes on. Memory is the largest
proportional set size (PSS) of those seen once a second. Ends with 1 when a row is lost, doubled or different, or when
client or service took over a tenth more memory in the last third of the images than in the first.
"""

import argparse
import csv
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.footprint import LOCAL, memory_mb
from benchmarks.limit import Limit
from benchmarks.running import Running, serving
from service.published import list_versions

_PER_FOLDER: Final = 500
_LIMIT_S: Final = 5
_PARTS: Final = 4
_LIMIT_PHOTOS: Final = 200
_GROWTH: Final = 1.1
_EVERY_S: Final = 1.0
_LOOK_S: Final = 0.1
_ROOT: Final = Path(__file__).resolve().parent.parent


def main() -> int:
    """Measures and prints; returns 1 when something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, metavar="MODELS", help="models directory with one model")
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder with JPEGs, searched in depth")
    parser.add_argument("--images", type=int, default=10_000, metavar="N", help="default: 10000")
    parser.add_argument("--kills", type=int, default=3, metavar="N", help="default: 3")
    options = parser.parse_args()
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
        limits = [limit.images_per_s(_LIMIT_S)]
        began, paused_s = time.monotonic(), 0.0
        run = _start(folder, address, "whole.csv")
        seen: list[tuple[int, float, float]] = []
        for part in range(1, _PARTS + 1):
            while (rows := _rows(folder / "whole.csv")) < images * part // _PARTS and run.poll() is None:
                seen.append((rows, _memory_mb(run.pid), _memory_mb(service.pid)))
                time.sleep(_EVERY_S)
            if part < _PARTS:
                paused_s += _limit_between(run, service, limit, limits)
        code = run.wait()
        took_s = time.monotonic() - began - paused_s
        limits.append(limit.images_per_s(_LIMIT_S))
    for at in sorted(random.Random(0).sample(range(images // 20, images * 19 // 20), kills)):
        run = _start(folder, address, "resumed.csv")
        _wait(run, lambda at=at: _rows(folder / "resumed.csv") >= at)  # type: ignore[misc]
        run.kill()
        run.wait()
    again = _start(folder, address, "resumed.csv").wait()
    whole, resumed = _read(folder / "whole.csv"), _read(folder / "resumed.csv")
    per_s, of = images / took_s, sum(limits) / len(limits)
    names, names_resumed = ({path for path, *_ in rows} for rows in (whole, resumed))
    early, late = (
        [max((one[column] for one in seen if low <= one[0] / images < high), default=math.nan) for column in (1, 2)]
        for low, high in ((0, 1 / 3), (2 / 3, 2))
    )
    lines = (
        f"{images} images in {took_s:.1f} s: {per_s:.0f}/s, {per_s / of:.2f} of the limit of {of:.0f}/s "
        f"({', '.join(f'{one:.0f}' for one in limits)})",
        f"memory in the first and in the last third: client {early[0]:.0f} and {late[0]:.0f} MB, service "
        f"{early[1]:.0f} and {late[1]:.0f} MB",
        f"rows: {len(whole)}, names: {len(names)}; exit code {code}",
        f"with {kills} kill -9: rows {len(resumed)}, names: {len(names_resumed)}; exit code {again}; rows that differ: "
        f"{len(set(whole) ^ set(resumed))}",
    )
    sys.stdout.write("\n".join(lines) + "\n")
    good = len(whole) == len(names) == images and sorted(whole) == sorted(resumed) and code == again == 0
    # a run of a few seconds has no samples in a third, and says nothing of growth
    flat = not any(after > _GROWTH * before for before, after in zip(early, late, strict=True))
    return 0 if good and flat else 1


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


def _limit_between(run: "subprocess.Popen[bytes]", service: Running, limit: Limit, limits: list[float]) -> float:
    """Measures the limit while the client is stopped; the seconds that do not count."""
    run.send_signal(signal.SIGSTOP)
    try:
        _wait(run, lambda: not _in_flight(service))
        began = time.monotonic()
        limits.append(limit.images_per_s(_LIMIT_S))
        return time.monotonic() - began
    finally:
        run.send_signal(signal.SIGCONT)


def _in_flight(service: Running) -> float:
    with LOCAL.open(f"{service.http}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("graft_requests_in_flight"))


def _wait(run: "subprocess.Popen[bytes]", holds: Callable[[], bool]) -> None:
    """Until something holds, or the client has ended."""
    while not holds() and run.poll() is None:
        time.sleep(_LOOK_S)


def _memory_mb(pid: int) -> float:
    return sum(memory_mb(pid).values())


def _rows(out: Path) -> int:
    return out.read_bytes().count(b"\r\n") - 1 if out.exists() else 0


def _read(out: Path) -> list[tuple[str, ...]]:
    with out.open(encoding="utf-8", newline="") as lines:
        return [tuple(row) for row in csv.reader(lines, strict=True)][1:]


if __name__ == "__main__":
    sys.exit(main())
