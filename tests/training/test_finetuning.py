"""Fine-tuning trains what it says and nothing else, keeps the best weights, and comes out the same with the same seed."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from rich.console import Console

from service.image import decode
from training import backbones, features, finetuning, scratch, strategies
from training.errors import DataError, SettingError
from training.progress import Phases
from training.settings import Settings
from training.task import Task, Trained

# NumPy 2 about TensorFlow, in Keras' own code
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

_SIDE_PX = 32


@pytest.fixture(scope="module")
def task(make_task: Callable[[int], Task]) -> Task:
    """The photos at 32 px."""
    return make_task(_SIDE_PX)


def _settings(cache: Path, strategy: str, **other: object) -> Settings:
    return Settings(
        data=Path(), models=Path(), name="x", strategy=strategy, backbone="MobileNet:0.25", weights="none",
        side_px=_SIDE_PX, batch_size=8, cache=cache, **{"epochs": 2, "learning_rate": 1e-3, **other},
    )  # fmt: skip


def _train(task: Task, settings: Settings) -> tuple[Trained, backbones.Backbone, list[np.ndarray]]:
    """Trains; also returns the backbone and its weights as they were before."""
    prepared = strategies.prepare(settings)
    before = prepared.backbone.network.get_weights()
    used = task.pick(task.split.train + task.split.validation)
    computed = features.compute(used, prepared.backbone, task.spec, settings.cache)
    trained = finetuning.train(task, prepared.backbone, computed, settings, Phases(Console(quiet=True)))
    return trained, prepared.backbone, before


def test_partial_trains_the_last_blocks_only(task: Task, tmp_path: Path):
    """Weights before the cut and all BatchNorm statistics stay; weights after it move; the run folder is removed."""
    trained, backbone, before = _train(task, _settings(tmp_path, "partial", unfreeze=2))
    moved = {
        weight.path
        for weight, old in zip(backbone.network.weights, before, strict=True)
        if not np.array_equal(weight.numpy(), old)
    }
    assert moved
    assert all(path.startswith(("conv_dw_12", "conv_pw_12", "conv_dw_13", "conv_pw_13")) for path in moved)
    assert not any("moving" in path for path in moved)
    assert 0 < trained.trained_parameters < trained.model.count_params()
    assert not list(tmp_path.glob("run-*"))


def test_exported_model_is_what_was_validated(task: Task, tmp_path: Path):
    """The whole model, from pixels on, gives the validation scores that the cached activations gave (in float16)."""
    trained, _, _ = _train(task, _settings(tmp_path, "partial"))
    pixels = np.stack([decode(task.images[at].path.read_bytes(), task.spec) for at in trained.held_out])
    np.testing.assert_allclose(trained.model(pixels, training=False).numpy(), trained.scores, atol=0.01)
    assert tuple(trained.held_out) == task.split.validation


def test_same_seed_same_result(task: Task, tmp_path: Path):
    """Two runs with one seed have the same curve and the same scores."""
    first, second = (_train(task, _settings(tmp_path, "partial"))[0] for _ in range(2))
    assert first.epochs == second.epochs
    np.testing.assert_array_equal(first.scores, second.scores)


def test_best_weights_are_kept(task: Task, tmp_path: Path):
    """A learning rate that ruins the network leaves the weights that it came with: those of the linear head."""
    trained, backbone, before = _train(task, _settings(tmp_path, "partial", learning_rate=10.0, epochs=5))
    best = min(trained.epochs, key=lambda epoch: epoch.validation_loss)
    assert best.number == 0
    for weight, old in zip(backbone.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_full_trains_everything(task: Task, tmp_path: Path):
    """The first layer moves too; BatchNorm statistics still stay."""
    trained, backbone, before = _train(task, _settings(tmp_path, "full", epochs=1, learning_rate=1e-4))
    if min(trained.epochs, key=lambda epoch: epoch.validation_loss).number:
        assert not np.array_equal(backbone.network.get_weights()[0], before[0])
    for weight, old in zip(backbone.network.weights, before, strict=True):
        assert "moving" not in weight.path or np.array_equal(weight.numpy(), old)
    assert len(trained.epochs) == 2


def test_too_many_blocks_are_refused(task: Task, tmp_path: Path):
    """--unfreeze beyond what there is names the most, and the strategy that trains everything."""
    with pytest.raises(SettingError, match=r"expected --unfreeze of 1 to 13 .* got 14; --strategy full"):
        _train(task, _settings(tmp_path, "partial", unfreeze=14))


def test_no_validation_images_are_refused(task: Task, tmp_path: Path):
    """Early stopping needs something to stop by."""
    sides = type(task.split)(task.split.train, (), task.split.test, ())
    without = Task(task.images, task.labels, task.groups, task.class_names, sides, task.spec, 0)
    for train in (finetuning.train, None):
        settings = _settings(tmp_path, "full")
        with pytest.raises(DataError, match="validation"):
            if train:
                train(without, None, np.zeros((0, 1), np.float32), settings, Phases(Console(quiet=True)))
            else:
                scratch.train(without, settings, Phases(Console(quiet=True)))


def test_scratch_trains_and_tells_its_scores_honestly(task: Task, tmp_path: Path):
    """The basic network learns, and its held-out scores are those of the model that it returns."""
    keras.utils.set_random_seed(0)
    settings = _settings(tmp_path, "scratch", epochs=6)
    trained = scratch.train(task, settings, Phases(Console(quiet=True)))
    losses = [epoch.train_loss for epoch in trained.epochs if epoch.train_loss is not None]
    assert losses[-1] < losses[0]
    pixels = np.stack([decode(task.images[at].path.read_bytes(), task.spec) for at in trained.held_out])
    np.testing.assert_allclose(trained.model(pixels, training=False).numpy(), trained.scores, atol=1e-4)
