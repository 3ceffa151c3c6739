"""How fast the audit is without its label check, and how much memory it takes: `python -m benchmarks.audit`.

Draws small photos (JPEG, 128 x 96, some grain, ten classes, one in fifty a copy), audits them in a process of its own
and prints images/s and the peak resident memory of the largest process that it started.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

_CLASSES = 10


def main() -> None:
    """Draws, audits, prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000, metavar="N", help="default: 10000")
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "photos"
        for number in range(_CLASSES):
            (data / f"class-{number}").mkdir(parents=True)
        with ProcessPoolExecutor() as pool:
            list(pool.map(_draw, [data] * images, range(images), chunksize=200))
        start = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "training", "audit", str(data), "--no-label-check", "--cache", folder], check=True
        )
        seconds = time.monotonic() - start
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    sys.stdout.write(f"{images} images in {seconds:.1f} s: {images / seconds:.0f} images/s, peak {peak_mb:.0f} MB\n")


def _draw(data: Path, number: int) -> None:
    random = np.random.default_rng(number - _CLASSES if number % 50 == 49 else number)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((128, 96), Image.Resampling.BICUBIC), np.int16)
    pixels = np.clip(smooth + random.integers(-12, 13, smooth.shape), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(data / f"class-{number % _CLASSES}" / f"{number:06d}.jpg", quality=85)


if __name__ == "__main__":
    main()
