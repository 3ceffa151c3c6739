"""Activations at the freeze boundary: what the frozen part of a network says of each image, computed once.

They lie in one file of float16 in the run folder, so that a run that was killed finds them again, and go with that
folder when a version is published. The file appears by one rename when it is whole; its name says what it depends on.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from training import forward, pixels
from training.backbones import Backbone
from training.batches import Load, memmap_loader
from training.errors import SettingError
from training.features import BATCH
from training.progress import OutOfTimeError, Phases
from training.settings import Settings
from training.task import Task

_USUAL_MAX: Final = 1024.0
_FLOAT16_MAX: Final = float(np.finfo(np.float16).max)
_SPARE_BYTES: Final = 256 << 20


@contextmanager
def computed(
    task: Task,
    backbone: Backbone,
    cut: Any,  # noqa: ANN401 - keras is untyped
    settings: Settings,
    phases: Phases,
) -> Iterator[Load]:
    """The output of `cut` for all images of train and validation, in this order.

    Args:
        task: whose images.
        backbone: frozen up to `cut`.
        cut: an operation of its network, from backbones.boundaries.
        settings: the run folder; without one the file is in the cache and goes when the body ends.
        phases: shows the progress.

    Yields:
        A loader of float32 [N, ...]; what it reads is rounded to float16.

    Raises:
        SettingError: the disk has no room for them.
        DataError: a file changed.
        OutOfTimeError: at the rate of the first batches they would take more than half of the time that is left.
    """
    if settings.run_folder is not None:
        yield _find_or_compute(task, backbone, cut, settings.run_folder, phases)
        return
    with tempfile.TemporaryDirectory(prefix="run-", dir=settings.cache) as folder:
        yield _find_or_compute(task, backbone, cut, Path(folder), phases)


def _find_or_compute(task: Task, backbone: Backbone, cut: Any, folder: Path, phases: Phases) -> Load:  # noqa: ANN401
    used = task.split.train + task.split.validation
    shape = (len(used), *cut.output.shape[1:])
    needed = 2 * int(np.prod(shape))
    name = f"activations-{_key(task, backbone, cut)}"
    rows, scale_file = folder / f"{name}.f16", folder / f"{name}.json"
    # Written last: where it is, the rows are whole.
    if not scale_file.exists() or rows.stat().st_size != needed:
        for old in folder.glob("activations-*"):
            old.unlink()
        free = shutil.disk_usage(folder).free
        if free < needed + _SPARE_BYTES:
            raise SettingError(
                f"expected {needed >> 20} MiB of free disk in {folder.parent} for the activations, found "
                f"{free >> 20} MiB; a smaller --unfreeze needs less, another --cache may have more"
            )
        scale = _compute(task, backbone, cut, rows, shape, phases)
        unfinished = scale_file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(scale), encoding="ascii")
        unfinished.rename(scale_file)
    return memmap_loader(rows, shape, float(json.loads(scale_file.read_text(encoding="ascii"))))


def _compute(  # noqa: PLR0917 - one caller
    task: Task,
    backbone: Backbone,
    cut: Any,  # noqa: ANN401 - keras is untyped
    file: Path,
    shape: tuple[int, ...],
    phases: Phases,
) -> float:
    """Writes the rows; returns what they were divided by."""
    images = keras.Input((task.spec.side_px,) * 2 + (3,), dtype="uint8", name="images")
    bottom = keras.Model(backbone.network.input, cut.output)
    done, scale = 0, 1.0
    with phases.phase("computing activations") as advance:
        run = forward.build(keras.Model(images, bottom(backbone.prepare(images), training=False)), shape[0])
        rows = np.memmap(file, np.float16, "w+", shape=shape)
        start_s = phases.left_s
        for batch in pixels.batches(task.pick(task.split.train + task.split.validation), task.spec, BATCH):
            outputs = run(batch)
            if not done:
                # Untrained networks have activations of 1e-18, others of 1e5; float16 holds 1e-7 to 6e4.
                scale = float(np.abs(outputs).max()) / _USUAL_MAX or 1.0
            rows[done : done + len(batch)] = np.clip(outputs / scale, -_FLOAT16_MAX, _FLOAT16_MAX)
            done += len(batch)
            advance(done, len(rows))
            # never true without a deadline: infinity less infinity is not a number
            if (start_s - phases.left_s) / done * (len(rows) - done) > phases.left_s / 2:
                raise OutOfTimeError("the activations at the freeze boundary would take too long")
        rows.flush()
    return scale


def _key(task: Task, backbone: Backbone, cut: Any) -> str:  # noqa: ANN401 - keras is untyped
    images = [image.sha256 for image in task.pick(task.split.train + task.split.validation)]
    what = [backbone.family.title, backbone.sha256, cut.name, asdict(task.spec), images]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]
