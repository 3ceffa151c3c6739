"""Seconds and peak memory at scale: `python -m benchmarks.scale [--images N ...] [--steps STEP ...]`.

Draws small photos (JPEG, 64 x 48, twenty classes; one in fifty a copy, one in fifty mislabelled, one in a thousand
broken) and runs on them, one after another and each as a process of its own: the audit without and with its label
check, and `train`. While each runs, the proportional set size of all its processes together is sampled from /proc.
Prints a Markdown table. Each N starts with an empty cache; of its steps, the first that needs features computes them.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.footprint import memory_mb

CLASSES = 20
_SIZE = (64, 48)
_COARSE = (6, 8, 3)
_OWN = 0.6
"""Of a picture's coarse colours, what is its own; the rest is its class's."""

_TYPICAL = np.random.default_rng(0).integers(0, 256, (CLASSES, *_COARSE))
_EVERY_S = 0.2
_STEPS = {
    "index": ("audit", "--no-label-check"),
    "audit": ("audit",),
    "linear": ("train", "--strategy", "linear", "--name", "scale"),
    "auto": ("train", "--strategy", "auto", "--name", "scale"),
}


def main() -> None:
    """Draws, runs, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, nargs="+", default=[2_000, 10_000], metavar="N", help="default: 2000 10000"
    )
    parser.add_argument("--steps", nargs="+", choices=_STEPS, default=list(_STEPS), metavar="STEP", help="default: all")
    parser.add_argument("--folder", type=Path, help="keep pictures, cache and models here, and use what is there")
    parser.add_argument("--log", type=Path, default=Path("/dev/null"), help="what the commands print")
    parser.add_argument("rest", nargs="*", metavar="-- FLAGS", help="flags for every command, after --")
    options = parser.parse_args()
    print("| images | step | seconds | images/s | peak MB |\n|---|---|---|---|---|")  # noqa: T201
    for images in options.images:
        with tempfile.TemporaryDirectory(prefix="graft-scale-") as temporary:
            folder = (options.folder or Path(temporary)) / str(images)
            draw(folder / "photos", images)
            for step in options.steps:
                seconds, peak_mb = _run(step, folder, options.rest, options.log)
                print(f"| {images} | {step} | {seconds:.1f} | {images / seconds:.0f} | {peak_mb:.0f} |", flush=True)  # noqa: T201


def draw(folder: Path, images: int) -> None:
    """Draws so many files, always the same ones, unless they are there."""
    if folder.exists():
        return
    unfinished = folder.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for label in range(CLASSES):
        (unfinished / f"class-{label:02d}").mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(_draw, [unfinished] * images, range(images), chunksize=500))
    unfinished.rename(folder)


def _draw(folder: Path, number: int) -> None:
    """One file. Number 49 of 50 is a copy of number 48, 24 of 50 has another class's label, 500 of 1000 is cut off."""
    shown = number - 1 if number % 50 == 49 else number
    random = np.random.default_rng(shown)
    label = shown % CLASSES
    target = folder / f"class-{(label + (7 if shown % 50 == 24 else 0)) % CLASSES:02d}" / f"{number:07d}.jpg"
    coarse = (_OWN * random.integers(0, 256, _COARSE) + (1 - _OWN) * _TYPICAL[label]).astype(np.uint8)
    Image.fromarray(coarse).resize(_SIZE, Image.Resampling.BICUBIC).save(target, quality=85)
    if number % 1000 == 500:
        target.write_bytes(target.read_bytes()[:200])


def _run(step: str, folder: Path, flags: list[str], log: Path) -> tuple[float, float]:
    """Seconds and peak MB of one command."""
    command, *own = _STEPS[step]
    arguments = [command, str(folder / "photos"), *own, "--cache", str(folder / "cache")]
    if command == "train":
        arguments += ["--models", str(folder / "models")]
    start = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "training", *arguments, *flags], stdout=output, stderr=subprocess.STDOUT
        )
        peak = _Peak(process.pid)
        peak.start()
        try:
            code = process.wait()
        finally:
            process.kill()
            peak.end()
    if code:
        raise SystemExit(f"{step} ended with {code}; --log FILE keeps what it printed")
    return time.monotonic() - start, peak.mb


class _Peak(threading.Thread):
    """Samples a process tree's memory until it is told to end; `mb` is the most that was seen."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.mb = 0.0
        self._root = root
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self.mb = max(self.mb, sum(memory_mb(self._root).values()))

    def end(self) -> None:
        self._ended.set()
        self.join()


if __name__ == "__main__":
    main()
