"""Checkpoints: whole or not there, of this training or not used, and training that goes on from one ends the same."""

import fcntl
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from rich.console import Console

from service.published import list_versions
from service.version import read_version, verify_files
from training import checkpoint, gradient, learning_rates
from training.augmentation import Augmentation
from training.batches import Batches
from training.checkpoint import Checkpoint, State
from training.progress import Phases
from training.settings import Settings
from training.task import Epoch, Task

# NumPy 2 about TensorFlow, in Keras' own code
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

_ROOT = Path(__file__).resolve().parents[2]
_STATE = State(
    [Epoch(0, None, 1.5, 0.25), Epoch(1, 0.7, 1.1, 0.5)], [np.arange(12.0)], [np.array(3)], [np.ones(2)], False
)


@pytest.fixture(scope="module")
def task(make_task: Callable[[int], Task]) -> Task:
    """The photos at 32 px."""
    return make_task(32)


def _settings(folder: Path, **other: object) -> Settings:
    given = {"data": Path("photos"), "models": Path(), "name": "x", "cache": folder, "run_folder": folder}
    return Settings(**given | other)


def _checkpoint(task: Task, folder: Path, **other: object) -> tuple[Checkpoint, io.StringIO]:
    said = io.StringIO()
    console = Console(file=said, soft_wrap=True)
    return Checkpoint(task, _settings(folder, **other), console, {"weights of the backbone": "abc"}), said


def test_what_was_saved_is_loaded(task: Task, tmp_path: Path):
    """Arrays of any shape, the curve and the flag come back; what is no part of the result may differ."""
    _checkpoint(task, tmp_path)[0].save(_STATE)
    loaded = _checkpoint(task, tmp_path, name="y", engine="tensorflow")[0].load(_STATE)
    assert loaded is not None
    assert (loaded.epochs, loaded.finished) == (_STATE.epochs, False)
    for name in ("model", "optimizer", "best"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(_STATE, name))
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_damaged_checkpoint_is_ignored(task: Task, tmp_path: Path):
    """Cut or changed anywhere, it is not used, and a line says so: never an error, never other numbers."""
    saving, _ = _checkpoint(task, tmp_path)
    saving.save(_STATE)
    (file,) = tmp_path.glob("*.npz")
    whole = file.read_bytes()
    chance = random.Random(5)
    for _ in range(40):
        at = chance.randrange(len(whole))
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]):
            file.write_bytes(damaged)
            loading, said = _checkpoint(task, tmp_path)
            loaded = loading.load(_STATE)
            if loaded is None:
                assert "checkpoint ignored" in said.getvalue()
            else:  # a byte that says nothing, such as a date
                np.testing.assert_array_equal(loaded.model, _STATE.model)
                assert loaded.epochs == _STATE.epochs


def test_a_foreign_checkpoint_is_ignored(task: Task, tmp_path: Path):
    """With other images, another split or other weights the line names what differs; other settings never meet it."""
    _checkpoint(task, tmp_path)[0].save(_STATE)
    sides = replace(task.split, train=task.split.train[1:])
    for other, name in ((replace(task, split=sides), "train images"), (replace(task, seed=1), "seed")):
        loading, said = _checkpoint(other, tmp_path)
        assert loading.load(_STATE) is None
        assert f"other {name}" in said.getvalue()
    changed = Checkpoint(
        task, _settings(tmp_path), Console(file=said, soft_wrap=True), {"weights of the backbone": "abd"}
    )
    assert changed.load(_STATE) is None
    assert "weights of the backbone" in said.getvalue()
    assert _checkpoint(task, tmp_path, epochs=7)[0].load(_STATE) is None
    assert _checkpoint(task, tmp_path)[0].load(replace(_STATE, model=[np.zeros(3)])) is None


def test_a_full_disk_does_not_end_the_training(task: Task, tmp_path: Path):
    """What cannot be written is said, and that is all."""
    saving, said = _checkpoint(task, tmp_path / "absent")
    saving.save(_STATE)
    assert "goes on without" in said.getvalue()


def test_run_folder_stays_until_the_run_succeeds(tmp_path: Path):
    """The same command finds it again after any failure; --fresh empties it; success removes it."""
    said = Console(file=io.StringIO())
    settings = _settings(tmp_path)

    def fail(settings: Settings) -> None:
        with checkpoint.run_folder(settings, said) as folder:
            left.append({file.name for file in folder.glob("*.npz")})
            (folder / "activations").mkdir()
            (folder / "a.npz").touch()
            raise KeyboardInterrupt

    left: list[set[str]] = []
    for one in (settings, settings, replace(settings, fresh=True)):
        with pytest.raises(KeyboardInterrupt):
            fail(one)
    assert left == [set(), {"a.npz"}, set()]
    with checkpoint.run_folder(settings, said) as folder:
        assert not (folder / "activations").exists()
    assert not list((tmp_path / "runs").iterdir())


def test_two_runs_of_one_command_stay_apart(tmp_path: Path):
    """The second has a folder of its own, and neither removes the other's."""
    said = Console(file=io.StringIO())
    with checkpoint.run_folder(_settings(tmp_path), said) as first:
        with checkpoint.run_folder(_settings(tmp_path), said) as second:
            assert first != second
        assert first.is_dir()
    assert not second.exists()


def test_folders_that_nobody_came_back_to_are_removed(tmp_path: Path):
    """After 30 days, and never one that is in use."""
    for name in ("old", "used", "new"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    for name in ("old", "used"):
        os.utime(tmp_path / "runs" / name, (0, 0))
    descriptor = os.open(tmp_path / "runs" / "used" / "lock", os.O_CREAT | os.O_RDWR)
    for entry in ("used/lock", "used"):
        os.utime(tmp_path / "runs" / entry, (0, 0))
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with checkpoint.run_folder(_settings(tmp_path), Console(file=io.StringIO())):
        assert {"used", "new"} <= {folder.name for folder in (tmp_path / "runs").iterdir()}
        assert not (tmp_path / "runs" / "old").exists()
    os.close(descriptor)


class _Interrupted(Checkpoint):
    """Ends the training when the given epoch has been saved."""

    def __init__(self, *arguments: object, after: int) -> None:
        super().__init__(*arguments)
        self._after = after

    def save(self, state: State) -> None:
        super().save(state)
        if state.epochs[-1].number == self._after:
            raise KeyboardInterrupt


def _fit(task: Task, folder: Path, after: int) -> tuple[list[Epoch], list[np.ndarray]]:
    """Five epochs of a small network with dropout, augmentation and a schedule; interrupted after an epoch."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3, activation="relu")]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dropout(0.5, seed=3), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 3), dtype="uint8"), *layers])
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3)).astype(np.uint8)
    labels = np.arange(24) % 3
    train = Batches(
        lambda at: pixels[at], np.arange(16), labels, 3, 4, seed=0, augmentation=Augmentation(flip=True), smoothing=0.1
    )
    validation = Batches(lambda at: pixels[at], np.arange(16, 24), labels, 3, 4)
    saving = _Interrupted(task, _settings(folder), Console(quiet=True), {}, after=after)
    curve = gradient.fit(
        model, train, validation, Phases(Console(quiet=True)), epochs=5, checkpoint=saving,
        schedule=learning_rates.warm_cosine(0.05), optimizer=lambda model: learning_rates.optimizer(model, {}),
    )  # fmt: skip
    return curve, model.get_weights()


def test_an_interrupted_training_ends_as_an_unbroken_one(task: Task, tmp_path: Path):
    """Interrupted after the first, third and last epoch: the same curve and weights, bit by bit."""
    for name in ("unbroken", "broken"):
        (tmp_path / name).mkdir()
    curve, weights = _fit(task, tmp_path / "unbroken", after=-1)
    assert len(curve) == 6
    for after in (1, 3, 5):
        with pytest.raises(KeyboardInterrupt):
            _fit(task, tmp_path / "broken", after)
    again, restored = _fit(task, tmp_path / "broken", after=-1)
    assert again == curve
    for one, other in zip(weights, restored, strict=True):
        np.testing.assert_array_equal(one, other)


def test_kill_9_at_any_moment_costs_an_epoch_at_most(photos: Path, tmp_path: Path):
    """Killed at a random moment, the same command has the unbroken run's curve and metrics; no half version is seen."""
    chance = random.Random(time.time_ns())
    command = [
        sys.executable, "-m", "training", "train", str(photos), "--name", "tints", "--strategy", "scratch",
        "--side", "32",
        "--epochs", "8", "--learning-rate", "0.01", "--engine", "openvino/f32",
    ]  # fmt: skip

    def run(models: Path, cache: Path, *, kill: bool) -> int:
        started = subprocess.Popen(
            [*command, "--models", str(models), "--cache", str(cache)],
            cwd=_ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        reached = -1
        wanted = chance.randrange(1, 8)
        for line in started.stdout:
            if line.startswith("epoch"):
                reached = int(line.split()[1])
                curves[models.name][reached] = line
            if kill and reached >= wanted:
                time.sleep(chance.uniform(0, 0.1))
                started.send_signal(signal.SIGKILL)
                break
            if line.startswith("going on"):
                reached = int(line.split()[4].rstrip(","))
                resumed.append(reached)
        started.stdout.close()
        started.wait()
        assert list_versions(models) == ({} if kill else {"tints": [1]})
        return reached

    resumed: list[int] = []
    curves: dict[str, dict[int, str]] = {"unbroken": {}, "broken": {}}
    run(tmp_path / "unbroken", tmp_path / "a", kill=False)
    reached = run(tmp_path / "broken", tmp_path / "b", kill=True)
    run(tmp_path / "broken", tmp_path / "b", kill=False)
    assert resumed
    assert resumed[0] >= reached  # what was shown was kept
    assert len(curves["unbroken"]) > 1
    assert curves["broken"] == curves["unbroken"]
    one, other = (read_version(tmp_path / name / "tints" / "1") for name in ("unbroken", "broken"))
    verify_files(other)
    assert one.manifest.metrics == other.manifest.metrics
    assert one.manifest.calibration == other.manifest.calibration
    assert not list((tmp_path / "b" / "runs").iterdir())
