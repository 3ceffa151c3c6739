"""`--strategy linear` against the tutorial way: `python -m benchmarks.tutorial DATA [DATA ...] --tutorial tutorial.py`.

Splits each data set once (15 % to test, no picture on both sides) and trains both on the same images, one after the
other, as often as asked. Seconds are from the start of the process to the published version, or the exported model;
the table has the medians. Both models are asked about the same test images, each read as it was trained: Graft's by its
own classifier, the tutorial's by Keras' image_dataset_from_directory.

The tutorial is any script that takes `DATA EPOCHS`, DATA a folder of class folders, and exports a Keras model that
takes float32 [N,224,224,3] in 0..255 to $TMPDIR/tutorial_export.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from service.version import read_version

_EPOCHS: Final = 10


def main() -> None:
    """Trains both in turn, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="+", type=Path, help="folders of class folders")
    parser.add_argument("--tutorial", type=Path, required=True, help="the script")
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="default: 1")
    asked = parser.parse_args()
    table = Table("data", "tested", "linear", "accuracy", "tutorial", "accuracy", "times faster", box=None)
    for data in asked.data:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            tested = _split(data, folder / "split")
            graft, tutorial = [], []
            for _ in range(asked.repeats):
                graft.append(_graft(folder))
                tutorial.append(_tutorial(asked.tutorial.resolve(), folder))
        ours, theirs = (statistics.median(seconds for seconds, _ in runs) for runs in (graft, tutorial))
        table.add_row(
            data.name,
            str(tested),
            f"{ours:.1f} s",
            f"{graft[0][1]:.4f}",
            f"{theirs:.1f} s",
            f"{tutorial[0][1]:.4f}",
            f"{theirs / ours:.1f}",
        )
    Console(width=120).print(table)


def _split(data: Path, folder: Path) -> int:
    """Links the images to FOLDER/train/CLASS and FOLDER/test/CLASS; returns how many are tested on."""
    from training import dataset, duplicates, split  # noqa: PLC0415 - the timed processes import their own

    with tempfile.TemporaryDirectory() as cache:
        images = dataset.index(data, Path(cache)).images
    sides = split.split(images, duplicates.group(images), validation=0)
    for side, positions in (("train", sides.train), ("test", sides.test)):
        for position in positions:
            image = images[position]
            target = folder / side / image.label / f"{position}{image.path.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image.path, target)
    return len(sides.test)


def _graft(folder: Path) -> tuple[float, float]:
    """Seconds, test accuracy."""
    models = folder / "models"
    for old in (models, folder / "cache"):
        shutil.rmtree(old, ignore_errors=True)
    command = ["-m", "training", "train", str(folder / "split"), "--name", "photos", "--strategy", "linear"]
    seconds = _run([*command, "--models", str(models), "--cache", str(folder / "cache")], folder)
    return seconds, read_version(models / "photos" / "1").manifest.metrics.test.accuracy


def _tutorial(script: Path, folder: Path) -> tuple[float, float]:
    """Seconds, test accuracy."""
    seconds = _run([str(script), str(folder / "split" / "train"), str(_EPOCHS)], folder)
    return seconds, _accuracy(folder / "tutorial_export", folder / "split" / "test")


def _run(command: list[str], folder: Path) -> float:
    start = time.monotonic()
    subprocess.run([sys.executable, *command], env=os.environ | {"TMPDIR": str(folder)}, check=True)
    return time.monotonic() - start


def _accuracy(model: Path, test: Path) -> float:
    import keras  # noqa: PLC0415 - two seconds
    import tensorflow as tf  # noqa: PLC0415 - the same

    images: Any = keras.utils.image_dataset_from_directory(
        test, image_size=(224, 224), batch_size=32, shuffle=False, verbose=False
    )
    loaded = tf.saved_model.load(str(model))  # must live as long as what it serves
    right = [np.asarray(loaded.serve(pixels)).argmax(axis=1) == np.asarray(labels) for pixels, labels in images]
    return float(np.concatenate(right).mean())


if __name__ == "__main__":
    main()
