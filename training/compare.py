"""Strategies side by side on the same split: a table, a page with pictures, and JSON. Publishes nothing.

The test accuracy here is that of the trained model in float32, not of an exported version on an engine. Each strategy
starts from an empty cache of its own, so that its seconds are what it takes alone.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from service.image import ImageSpec
from training import dataset, leftovers, quiet, train
from training.errors import DataError
from training.progress import Phases
from training.settings import Settings
from training.task import Epoch

_CACHE: Final = "compare-"
ALWAYS: Final = "scratch"
"""What transfer is compared with."""


@dataclass(frozen=True)
class Compared:
    """One strategy; accuracies are of the validation evidence and of the test images.

    `curve` has the epochs of gradient training; a strategy without has none.
    """

    strategy: str
    backbone: str
    chosen: str
    validation_accuracy: float
    validation_images: int
    test_accuracy: float
    test_interval: tuple[float, float]
    test_images: int
    trained_parameters: int
    seconds: float
    curve: tuple[Epoch, ...]


def run(settings: Settings, names: Sequence[str], out: Path, console: Console) -> list[Compared]:
    """Trains each strategy on the same train and validation images and asks it about the same test images.

    Args:
        settings: of all of them, but for the strategy.
        names: strategies; `scratch` is added where it is not among them.
        out: folder for compare.html, its pictures and compare.json.
        console: gets the table.

    Raises:
        DataError: there is nothing to train or test on.
        SettingError: a setting does not fit.
    """
    out.mkdir(parents=True, exist_ok=True)
    phases = Phases(console)
    with phases.phase("loading TensorFlow"):
        quiet.import_keras()
    with phases.phase("indexing") as advance:
        found = dataset.index(settings.data, settings.cache, on_progress=advance)
    _check_split(settings, found)
    leftovers.remove(settings.cache, _CACHE)
    compared = []
    for name in dict.fromkeys((*names, ALWAYS)):
        console.print(f"\n{name}")
        # The side is for networks that can take any; the basic network has one of its own.
        side = None if name == ALWAYS else settings.side_px
        with tempfile.TemporaryDirectory(prefix=leftovers.prefix(_CACHE), dir=settings.cache) as cache:
            logs = settings.tensorboard and settings.tensorboard / name
            asked = replace(settings, strategy=name, side_px=side, cache=Path(cache), tensorboard=logs)
            compared.append(measure(asked, found, console))
        _write(compared, settings, out)
    from training.report import comparison  # noqa: PLC0415 - matplotlib

    comparison.write_compare(out, settings, compared)
    _tell(compared, out, console)
    return compared


def measure(settings: Settings, found: dataset.Dataset, console: Console) -> Compared:
    """Trains one strategy and asks it about the test images."""
    from training import evaluation, forward, pixels, strategies  # noqa: PLC0415 - import Keras

    strategy = strategies.prepare(settings)
    task = train.make_task(
        settings, found, ImageSpec(strategy.side_px, settings.resize), *train.make_groups(settings, found)
    )
    phases = Phases(console)
    trained = strategy.train(task, phases)
    tested = task.pick(task.split.test)
    run = forward.build(trained.model, len(tested))
    scores = np.concatenate([run(batch) for batch in pixels.batches(tested, task.spec, 32)])
    right = scores.argmax(axis=1) == task.labels[list(task.split.test)]
    return Compared(
        strategy=settings.strategy,
        backbone=strategy.backbone_name,
        chosen=trained.strategy or settings.strategy,
        validation_accuracy=float(np.mean(trained.scores.argmax(axis=1) == trained.held_out_labels(task))),
        validation_images=len(trained.held_out),
        test_accuracy=float(right.mean()),
        test_interval=evaluation.wilson(int(right.sum()), len(right)),
        test_images=len(right),
        trained_parameters=trained.trained_parameters,
        seconds=round(sum(phases.seconds.values()), 2),
        curve=tuple(trained.epochs),
    )


def _check_split(settings: Settings, found: dataset.Dataset) -> None:
    sides = train.make_split(settings, found, *train.make_groups(settings, found))
    if not sides.test:
        raise DataError("expected test images to compare on; there are none (--test-fraction)")
    if not sides.validation:
        raise DataError(
            f"expected validation images; there are none (--validation-fraction), and `{ALWAYS}`, which is always "
            "compared with, stops by them"
        )


def _write(compared: Sequence[Compared], settings: Settings, out: Path) -> None:
    """What is known so far: a strategy may take hours, and the next may fail."""
    said = {"data": settings.data.name, "seed": settings.seed, "strategies": [asdict(one) for one in compared]}
    (out / "compare.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def _tell(compared: Sequence[Compared], out: Path, console: Console) -> None:
    head = ("strategy", "test accuracy", "95 %", "validation", "seconds", "parameters trained")
    table = Table(*head, box=None, pad_edge=False)
    for one in compared:
        low, high = one.test_interval
        table.add_row(
            one.strategy if one.chosen == one.strategy else f"{one.strategy}: {one.chosen}",
            f"{one.test_accuracy:.4f}",
            f"{low:.4f}-{high:.4f}",
            f"{one.validation_accuracy:.4f}",
            f"{one.seconds:.1f}",
            f"{one.trained_parameters:,}",
        )
    console.print()
    console.print(table)
    console.print(f"{out / 'compare.html'}, {out / 'compare.json'}")
