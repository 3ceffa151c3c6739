"""Activations at the freeze boundary: what the frozen part of a network says of each image, computed once.

And of a few changed copies of each training image, so that the trained part does not see the same too often. They lie
in one file of float16 in the run folder, so that a run that was killed finds them again, and go with that folder when a
version is published. The file appears by one rename when it is whole; its name says what it depends on.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training import forward, leftovers, pixels
from training.augmentation import Augmentation
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
_APART: Final = "run-"
_COPIES: Final = 2
_COPIES_SHARE: Final = 0.25
"""Of the time that is left, for each set of copies: to see pictures often is worth more than to see them changed."""


@dataclass(frozen=True)
class Activations:
    """What was computed.

    Attributes:
        load: from rows to float32 [N, ...]; what it reads is rounded to float16.
        versions: rows of the training images, [1 + copies, train images]: as they are, and changed.
    """

    load: Load
    versions: NDArray[np.intp]


@contextmanager
def computed(
    task: Task,
    backbone: Backbone,
    cut: Any,  # noqa: ANN401 - keras is untyped
    settings: Settings,
    phases: Phases,
) -> Iterator[Activations]:
    """The output of `cut` for all images of train and validation, in this order, and for copies of the former.

    Args:
        task: whose images.
        backbone: frozen up to `cut`.
        cut: an operation of its network, from backbones.boundaries.
        settings: the run folder, without one the file is in the cache and goes when the body ends; whether to flip.
        phases: shows the progress.

    Yields:
        What was computed; fewer copies, or none, where the time does not allow for them.

    Raises:
        SettingError: the disk has no room for them.
        DataError: a file changed.
        OutOfTimeError: at the rate of the first batches they would take more than half of the time that is left.
    """
    if settings.run_folder is not None:
        yield _find_or_compute(task, backbone, cut, settings, settings.run_folder, phases)
        return
    leftovers.remove(settings.cache, _APART)
    with tempfile.TemporaryDirectory(prefix=leftovers.prefix(_APART), dir=settings.cache) as folder:
        yield _find_or_compute(task, backbone, cut, settings, Path(folder), phases)


def _find_or_compute(  # noqa: PLR0917 - one caller
    task: Task,
    backbone: Backbone,
    cut: Any,  # noqa: ANN401 - keras is untyped
    settings: Settings,
    folder: Path,
    phases: Phases,
) -> Activations:
    images, trained = len(task.split.train + task.split.validation), len(task.split.train)
    shape = (images + _COPIES * trained, *cut.output.shape[1:])
    needed = 2 * int(np.prod(shape))
    augmentation = Augmentation(settings.flip)
    name = f"activations-{_key(task, backbone, cut, augmentation)}"
    rows, told = folder / f"{name}.f16", folder / f"{name}.json"
    # Written last: where it is, the rows are whole.
    if not told.exists() or rows.stat().st_size != needed:
        for old in folder.glob("activations-*"):
            old.unlink()
        free = shutil.disk_usage(folder).free
        if free < needed + _SPARE_BYTES:
            raise SettingError(
                f"expected {needed >> 20} MiB of free disk in {folder.parent} for the activations, found "
                f"{free >> 20} MiB; a smaller --unfreeze needs less, another --cache may have more"
            )
        try:
            with rows.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, needed)  # else writing to a disk that has become full is fatal
        except OSError as error:  # a quota, which the free space does not tell
            rows.unlink(missing_ok=True)
            raise SettingError(
                f"cannot take {needed >> 20} MiB of disk in {folder.parent} for the activations: {error.strerror}; a "
                "smaller --unfreeze needs less, another --cache may have more"
            ) from error
        writer = _Writer(np.memmap(rows, np.float16, "r+", shape=shape))
        copies = _compute(task, backbone, cut, augmentation, writer, phases)
        unfinished = told.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"scale": writer.scale, "copies": copies}), encoding="ascii")
        unfinished.rename(told)
    found = json.loads(told.read_text(encoding="ascii"))
    starts = [0, *(images + copy * trained for copy in range(found["copies"]))]
    return Activations(memmap_loader(rows, shape, found["scale"]), np.add.outer(starts, np.arange(trained)))


def _compute(  # noqa: PLR0917 - one caller
    task: Task,
    backbone: Backbone,
    cut: Any,  # noqa: ANN401 - keras is untyped
    augmentation: Augmentation,
    writer: "_Writer",
    phases: Phases,
) -> int:
    """Writes the rows; returns how many copies there are of each training image."""
    trained, used = task.pick(task.split.train), task.pick(task.split.train + task.split.validation)
    images = keras.Input((task.spec.side_px,) * 2 + (3,), dtype="uint8", name="images")
    bottom = keras.Model(backbone.network.input, cut.output)
    copies = 0
    with phases.phase("computing activations") as advance:
        run = forward.build(keras.Model(images, bottom(backbone.prepare(images), training=False)), len(writer.rows))
        start_s = phases.left_s
        for batch in pixels.batches(used, task.spec, BATCH):
            writer.add(run(batch))
            advance(writer.done, len(writer.rows))
            # Without a deadline infinity less infinity, which is not a number and larger than none.
            each_s = (start_s - phases.left_s) / writer.done
            if each_s * (len(used) - writer.done) > phases.left_s / 2:
                raise OutOfTimeError("the activations at the freeze boundary would take too long")
        while copies < _COPIES and not each_s * len(trained) > _COPIES_SHARE * phases.left_s:
            copies += 1
            random = np.random.default_rng([task.seed, copies])
            for batch in pixels.batches(trained, task.spec, BATCH):
                writer.add(run(np.stack([augmentation.apply(picture, random) for picture in batch])))
                advance(writer.done, len(writer.rows))
        writer.rows.flush()
    return copies


class _Writer:
    """Rounds to float16, one row after another.

    Attributes:
        rows: float16 [N, ...], in a file.
        done: how many are written.
        scale: what they were divided by.
    """

    def __init__(self, rows: "np.memmap[Any, np.dtype[np.float16]]") -> None:
        self.rows, self.done, self.scale = rows, 0, 1.0

    def add(self, outputs: NDArray[np.float32]) -> None:
        """Writes the next rows."""
        if not self.done:
            # Untrained networks have activations of 1e-18, others of 1e5; float16 holds 1e-7 to 6e4.
            self.scale = float(np.abs(outputs).max()) / _USUAL_MAX or 1.0
        rounded = np.clip(outputs / self.scale, -_FLOAT16_MAX, _FLOAT16_MAX)
        self.rows[self.done : self.done + len(outputs)] = rounded
        self.done += len(outputs)


def _key(task: Task, backbone: Backbone, cut: Any, augmentation: Augmentation) -> str:  # noqa: ANN401 - keras is untyped
    images = [image.sha256 for image in task.pick(task.split.train + task.split.validation)]
    what = [backbone.family.title, backbone.sha256, cut.name, asdict(task.spec), str(augmentation), task.seed, images]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]
