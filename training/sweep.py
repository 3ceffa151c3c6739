"""Accuracy against freeze depth: a linear head on each block boundary, for "how many layers may I freeze?".

Everything is out of fold on train and validation images; the test images are not looked at. Publishes nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from service.image import ImageSpec
from training import dataset, quiet, train
from training.errors import SettingError
from training.progress import Phases
from training.settings import Settings


@dataclass(frozen=True)
class Depth:
    """A linear head on everything up to one boundary: its accuracy out of fold, and the evidence of LogME."""

    layer: str
    width: int
    accuracy: float
    interval: tuple[float, float]
    images: int
    logme: float


def run(settings: Settings, out: Path, console: Console) -> list[Depth]:
    """Fits a linear head to the pooled output of every boundary and to the last features.

    Args:
        settings: data, backbone, split.
        out: folder for sweep.html, its picture and sweep.json.
        console: gets the lines.

    Raises:
        DataError: there is nothing to train on.
        SettingError: the backbone has no boundaries, or cannot be had.
    """
    phases = Phases(console)
    with phases.phase("loading TensorFlow"):
        quiet.import_keras()
        from training import depths, features, linear, strategies, transferability  # noqa: PLC0415 - import Keras
        from training.evaluation import wilson  # noqa: PLC0415 - the same
    with phases.phase("loading the backbone"):
        backbone = strategies.prepare(settings).backbone
    layers = depths.every(backbone) if backbone else ()
    if backbone is None or len(layers) < 2:
        raise SettingError(f"expected a backbone with boundaries between its blocks, got {settings.backbone}")
    with phases.phase("indexing") as advance:
        found = dataset.index(settings.data, settings.cache, on_progress=advance)
    task = train.make_task(
        settings, found, ImageSpec(backbone.side_px, settings.resize), *train.make_groups(settings, found)
    )
    fitted = list(task.split.train + task.split.validation)
    with phases.phase("computing features") as advance:
        computed = features.compute_depths(
            task.pick(fitted), backbone, task.spec, settings.cache, layers, on_progress=advance
        )
    labels, groups = task.labels[fitted], [task.groups[position] for position in fitted]
    swept = []
    with phases.phase("fitting heads") as advance:
        for layer, values in computed.items():
            head = linear.fit(values, labels, groups, task.classes, seed=task.seed)
            images = int(np.sum(head.held_out))
            right = int(np.sum((head.scores.argmax(axis=1) == labels)[head.held_out]))
            evidence = transferability.logme(values, labels, task.classes, seed=task.seed)
            interval = wilson(right, images)
            swept.append(Depth(layer, values.shape[1], right / images, interval, images, evidence))
            advance(len(swept), len(layers))
    _write(swept, settings, out)
    for one in swept:
        low, high = one.interval
        console.print(f"{one.layer:<26} {one.accuracy:.4f}  {low:.4f}-{high:.4f}  LogME {one.logme:.3f}")
    console.print(f"{out / 'sweep.html'}, {out / 'sweep.json'}")
    return swept


def _write(swept: Sequence[Depth], settings: Settings, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    said = {"data": settings.data.name, "backbone": settings.backbone, "depths": [asdict(one) for one in swept]}
    (out / "sweep.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    from training.report import comparison  # noqa: PLC0415 - matplotlib

    comparison.write_sweep(out, settings, swept)
