"""What gradient training needs to go on after a kill: one file per training, replaced after every epoch.

Owns the run folder (`<cache>/runs/<key>`, one per command) and the checkpoint file in it. What makes and
uses its values is training/gradient.py. Keras' BackupAndRestore keeps weights, optimizer and epoch, but neither the
best weights so far nor the curve, never asks whose they are, and writes in place, so that a kill can leave half a
file (docs/decisions.md).
"""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from training.settings import Settings
from training.task import Epoch, Task

_FORMAT: Final = 1
_KEEP_S: Final = 30 * 24 * 3600.0
_LOCK: Final = "lock"
_LIBRARIES: Final = ("graft", "tensorflow", "keras", "numpy")
# What changes nothing about the weights that a training ends with.
_NO_PART: Final = {
    "models", "name", "cache", "engine", "command", "champion", "publish_anyway", "fresh", "run_folder",
    "tensorboard", "quantize",
}  # fmt: skip


@dataclass(frozen=True)
class State:
    """Gradient training after an epoch.

    Attributes:
        epochs: what happened, from epoch 0; the last one is the one after which this is.
        model: all variables of the model, seeds of its random layers included.
        optimizer: all variables of the optimizer.
        best: the weights of the best epoch.
        finished: no more epochs are to come.
    """

    epochs: Sequence[Epoch]
    model: Sequence[NDArray[Any]]
    optimizer: Sequence[NDArray[Any]]
    best: Sequence[NDArray[Any]]
    finished: bool


@contextmanager
def run_folder(settings: Settings, console: Console) -> Iterator[Path]:
    """The folder of this command's run: found again by the same command, removed when the body succeeds.

    It is locked while it is used; a second run of the same command meanwhile gets a folder of its own. Folders that
    nobody came back to for 30 days are removed.

    Args:
        settings: the run.
        console: says when there is something to go on from.
    """
    runs = settings.cache / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    _remove_old(runs)
    folder = runs / _key(_chosen(settings))
    lock = _lock(folder)
    if lock is None:
        console.print("the same command is running already; this run keeps its checkpoints apart from that one's")
        with tempfile.TemporaryDirectory(prefix="apart-", dir=runs) as apart:
            yield Path(apart)
        return
    try:
        for entry in folder.iterdir():
            if entry.is_dir():  # activations of a run that was killed
                shutil.rmtree(entry, ignore_errors=True)
            elif settings.fresh and entry.name != _LOCK:
                entry.unlink()
        try:
            yield folder
        except BaseException:
            if any(folder.glob("*.npz")):
                console.print("the same command goes on after the last finished epoch; --fresh starts anew")
            raise
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


class Checkpoint:
    """The checkpoint of one training.

    Args:
        task: what is learnt.
        settings: how; its run_folder says where, None for nowhere.
        console: says what was ignored or could not be written.
        determines: whatever else decides the result, by name: the weights that it starts from.
    """

    def __init__(self, task: Task, settings: Settings, console: Console, determines: Mapping[str, str]) -> None:
        self._console = console
        self._whose = _identity(task, settings) | dict(determines)
        folder = settings.run_folder
        self._file = None if folder is None else folder / f"{_key(_chosen(settings))}.npz"

    def load(self, like: State) -> State | None:
        """What was saved last; None where there is nothing, or nothing of this training.

        Args:
            like: a state whose arrays have the expected shapes.
        """
        if self._file is None or not self._file.exists():
            return None
        try:
            state = self._read(self._file)
            for name in ("model", "optimizer", "best"):
                if [one.shape for one in getattr(state, name)] != [one.shape for one in getattr(like, name)]:
                    raise ValueError(f"the {name} in it is another one")
        except Exception as error:  # noqa: BLE001 - whatever a damaged file does to zipfile, JSON and NumPy
            self._console.print(f"checkpoint ignored, training starts anew: {error}")
            return None
        return state

    def save(self, state: State) -> None:
        """Replaces what was saved, all or nothing. A disk that is full does not end the training."""
        if self._file is None:
            return
        curve = [asdict(epoch) for epoch in state.epochs]
        header = {"format": _FORMAT, "whose": self._whose, "epochs": curve, "finished": state.finished}
        arrays = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)}
        for name in ("model", "optimizer", "best"):
            arrays |= {f"{name}-{number:05d}": array for number, array in enumerate(getattr(state, name))}
        temporary = self._file.with_suffix(".unfinished")
        try:
            with temporary.open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]
                stream.flush()
                os.fsync(stream.fileno())
            temporary.rename(self._file)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            self._console.print(f"no checkpoint could be written ({error.strerror}); training goes on without")

    def _read(self, file: Path) -> State:
        with zipfile.ZipFile(file) as archive:
            if archive.testzip() is not None:
                raise ValueError("the file is damaged")
        with np.load(file) as stored:
            header = json.loads(stored["header"].tobytes())
            if header["format"] != _FORMAT:
                raise ValueError("it has another format")
            whose = header["whose"]
            other = sorted(
                name for name in self._whose.keys() | whose.keys() if self._whose.get(name) != whose.get(name)
            )
            if other:
                raise ValueError(f"it was made with other {', '.join(other)}")
            arrays = {
                name: [stored[key] for key in sorted(stored.files) if key.startswith(f"{name}-")]
                for name in ("model", "optimizer", "best")
            }
        return State([Epoch(**epoch) for epoch in header["epochs"]], **arrays, finished=header["finished"])


def _identity(task: Task, settings: Settings) -> dict[str, str]:
    """What decides the result of a training, by the name that a person would give it."""
    sides = {}
    for side in ("train", "validation"):
        digest = hashlib.sha256()
        for position in getattr(task.split, side):
            digest.update(f"{task.images[position].sha256} {task.labels[position]}\n".encode())
        sides[f"{side} images"] = digest.hexdigest()
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[f"version of {name}"] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        **sides,
        **libraries,
        "class names": _key(task.class_names),
        "image spec": _key(asdict(task.spec)),
        "seed": str(task.seed),
        "settings": _key(_chosen(settings)),
    }


def _chosen(settings: Settings) -> dict[str, str]:
    chosen = {one.name: str(getattr(settings, one.name)) for one in fields(settings) if one.name not in _NO_PART}
    return chosen | {"data": str(settings.data.resolve())}


def _key(what: object) -> str:
    text = json.dumps(what if isinstance(what, dict) else list(what), sort_keys=True)  # type: ignore[call-overload]
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _lock(folder: Path) -> int | None:
    """Locks a folder until the descriptor is closed or the process ends, however it does; None: another has it."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except FileNotFoundError:  # removed by a run that has just succeeded
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.close(descriptor)


def _remove_old(runs: Path) -> None:
    for folder in runs.iterdir():
        newest = max((entry.stat().st_mtime for entry in (folder, *folder.glob("*"))), default=0.0)
        if time.time() - newest > _KEEP_S:
            lock = _lock(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
