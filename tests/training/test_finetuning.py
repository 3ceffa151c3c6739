"""Fine-tuning trains what it says and nothing else, keeps the best weights, and repeats itself with the same seed."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
from rich.console import Console

from service.image import decode
from training import backbones, features, finetuning, gradient, learning_rates, plan, scratch, strategies
from training.errors import DataError, SettingError
from training.progress import Phases
from training.settings import Settings
from training.task import Task, Trained, kept

# NumPy 2 about TensorFlow, in Keras' own code
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

_SIDE_PX = 32


@pytest.fixture(scope="module")
def task(make_task: Callable[[int], Task]) -> Task:
    """The photos at 32 px, validated on images of the train split, so that whatever is learnt shows."""
    made = make_task(_SIDE_PX)
    train = made.split.train
    return dataclasses.replace(made, split=dataclasses.replace(made.split, validation=train[::3]))


def _settings(cache: Path, strategy: str, **other: object) -> Settings:
    return Settings(
        data=Path(), models=Path(), name="x", strategy=strategy, weights="none",
        side_px=_SIDE_PX, cache=cache,
        **{"backbone": "MobileNet:0.25", "epochs": 2, "batch_size": 8, "learning_rate": 1e-4, **other},
    )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What was trained, its backbone, and the backbone's weights as they were before."""

    trained: Trained
    backbone: backbones.Backbone
    before: list[np.ndarray]
    cache: Path


def _train(task: Task, settings: Settings) -> Run:
    prepared = strategies.prepare(settings)
    _wake(prepared.backbone, np.stack([decode(image.path.read_bytes(), task.spec) for image in task.images]))
    before = prepared.backbone.network.get_weights()
    used = task.pick(task.split.train + task.split.validation)
    computed = features.compute(used, prepared.backbone, task.spec, settings.cache)
    with pytest.MonkeyPatch.context() as patch:
        # A fitted head leaves nothing to learn on so few images, and then nothing moves.
        patch.setattr(finetuning, "_linear_head", lambda *_: (keras.layers.Dense(3, name="head"), 1.0))
        trained = finetuning.train(task, prepared.backbone, computed, settings, Phases(Console(quiet=True)))
    return Run(trained, prepared.backbone, before, settings.cache)


def _wake(backbone: backbones.Backbone, pixels: np.ndarray) -> None:
    """Gives BatchNorm the statistics of these pixels: a random network without them lets nearly nothing through."""
    normal = [layer for layer in backbone.network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in normal:
        layer.momentum = 0.0
    backbone.network(backbone.prepare(pixels), training=True)


def _moved(run: Run) -> set[str]:
    """Paths of the backbone's weights that are not what they were."""
    pairs = zip(run.backbone.network.weights, run.before, strict=True)
    return {weight.path for weight, old in pairs if not np.array_equal(weight.numpy(), old)}


@pytest.fixture(scope="module")
def partial(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of `partial`."""
    return _train(task, _settings(tmp_path_factory.mktemp("cache"), "partial", unfreeze=2))


def test_partial_trains_the_last_blocks_only(partial: Run):
    """Weights before the cut and all BatchNorm layers stay; weights after it move; the run folder is removed."""
    moved = _moved(partial)
    assert moved
    assert all(path.startswith(("conv_dw_12", "conv_pw_12", "conv_dw_13", "conv_pw_13")) for path in moved)
    assert not any("_bn/" in path for path in moved)
    assert 0 < partial.trained.trained_parameters < partial.trained.model.count_params()
    assert not list(partial.cache.glob("run-*"))


def test_exported_model_is_what_was_validated(partial: Run, task: Task):
    """The whole model, from pixels on, gives the validation scores that the cached activations gave (in float16)."""
    trained = partial.trained
    pixels = np.stack([decode(task.images[at].path.read_bytes(), task.spec) for at in trained.held_out])
    np.testing.assert_allclose(trained.model(pixels, training=False).numpy(), trained.scores, atol=0.01)
    assert tuple(trained.held_out) == task.split.validation


def test_freeze_counts_from_the_start_and_the_seed_decides(partial: Run, task: Task, tmp_path: Path):
    """--freeze 12 of 13 boundaries is --unfreeze 2; a second run of one seed has the same curve and the same scores."""
    again = _train(task, _settings(tmp_path, "partial", freeze=12))
    cut = {"unfreeze": "2", "frozen_up_to": "conv_pw_11_relu"}
    for run in (partial, again):
        assert cut.items() <= run.trained.hyperparameters.items()
    assert again.trained.epochs == partial.trained.epochs
    np.testing.assert_array_equal(again.trained.scores, partial.trained.scores)


def test_half_of_the_blocks_or_a_quarter_in_a_hurry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By how long 200 steps of half of them would take; how fast those are is measured, and changes nothing."""
    settings = _settings(tmp_path, "partial")
    backbone = strategies.prepare(settings).backbone
    before, boundaries = backbone.network.get_weights(), backbones.boundaries(backbone.network)
    head = keras.layers.Dense(3, name="head")
    assert finetuning._cut(backbone, head, settings, math.inf) is boundaries[-6]  # of 13
    assert finetuning._cut(backbone, head, settings, 1e6) is boundaries[-6]
    for one, other in zip(before, backbone.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    monkeypatch.setattr(gradient, "step_s", lambda _model, _size: 1.0)
    assert finetuning._cut(backbone, head, settings, 201.0) is boundaries[-6]
    assert finetuning._cut(backbone, head, settings, 199.0) is boundaries[-3]
    assert finetuning._cut(backbone, head, dataclasses.replace(settings, unfreeze=6), 1.0) is boundaries[-6]


def test_one_batch_cannot_ruin_much():
    """A gradient of a million moves a variable no further than one of 1 does."""
    ends = []
    for gradients in ((1.0, 1.0, 1.0), (1.0, 1e6, 1.0)):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
        optimizer = learning_rates.optimizer(model, {})
        optimizer.learning_rate = 0.01
        for one in gradients:
            optimizer.apply([keras.ops.full((1, 1), one)], model.trainable_weights)
        ends.append(float(model.get_weights()[0].item()))
    assert ends[1] == pytest.approx(ends[0])


def test_what_came_is_kept_when_training_ruins_it(task: Task, tmp_path: Path):
    """A learning rate that ruins the network leaves the weights that it came with."""
    run = _train(task, _settings(tmp_path, "partial", unfreeze=1, learning_rate=1e9))
    assert kept(run.trained.epochs).number == 0
    assert not _moved(run)


def test_the_end_of_the_schedule_is_kept(partial: Run):
    """Not the epoch that validation happens to like best: only the last one can take the place of what came."""
    epochs = partial.trained.epochs
    assert [epoch.number for epoch in epochs if epoch.beats_start] == [epochs[-1].number]
    assert kept(epochs) is epochs[-1]


def test_the_fitted_head_is_left_only_for_what_is_clearly_better(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A lower loss does not count when it is not lower by the doubt, in standard errors."""
    monkeypatch.setattr(plan, "doubt", lambda _left: 1e9)
    run = _train(task, _settings(tmp_path, "partial", unfreeze=2))
    losses = [epoch.validation_loss for epoch in run.trained.epochs]
    assert losses[-1] < losses[0]
    assert kept(run.trained.epochs).number == 0
    assert not _moved(run)


@pytest.mark.parametrize(
    ("strategy", "left", "rate"),
    [("partial", 0.0, 1e-4), ("partial", 0.05, 5e-4), ("partial", 1.0, 1e-3), ("full", 0.0, 3e-5), ("full", 0.5, 3e-4)],
)
def test_the_worse_the_features_the_higher_the_rate(partial: Run, task: Task, strategy: str, left: float, rate: float):
    """By the mistakes that the head alone makes; a rate that was asked for is taken as it is."""
    for asked, expected in ((None, rate), (0.5, 0.5)):
        settings = _settings(partial.cache, strategy, learning_rate=asked)
        assert finetuning._recipe(task, partial.backbone, settings, left).learning_rate == pytest.approx(expected)


def test_full_trains_everything(task: Task, tmp_path: Path):
    """The first layer moves too; BatchNorm still stays."""
    run = _train(task, _settings(tmp_path, "full", epochs=2))
    moved = _moved(run)
    assert "conv1/kernel" in moved
    assert not any("_bn/" in path for path in moved)


def test_too_many_blocks_are_refused(task: Task, tmp_path: Path):
    """--unfreeze or --freeze beyond what there is names the most, and the strategy for everything or nothing."""
    with pytest.raises(SettingError, match=r"expected --unfreeze of 1 to 13 .* got 14; --strategy full"):
        _train(task, _settings(tmp_path, "partial", unfreeze=14))
    with pytest.raises(SettingError, match=r"expected --freeze of 1 to 13 .* got 14; --strategy linear"):
        _train(task, _settings(tmp_path, "partial", freeze=14))


@pytest.mark.parametrize("strategy", ["partial", "full", "scratch"])
def test_no_validation_images_are_refused(strategy: str, task: Task, tmp_path: Path):
    """Early stopping needs something to stop by; it is said before anything is computed."""
    sides = type(task.split)(task.split.train, (), task.split.test, ())
    without = Task(task.images, task.labels, task.groups, task.class_names, sides, task.spec, 0)
    with pytest.raises(DataError, match="--validation-fraction"):
        strategies.Strategy(_settings(tmp_path, strategy), None, 32).train(without, Phases(Console(quiet=True)))


def test_scratch_trains_and_tells_its_scores_honestly(task: Task, tmp_path: Path):
    """The basic network learns, and its held-out scores are those of the model that it returns."""
    keras.utils.set_random_seed(0)
    settings = _settings(tmp_path, "scratch", epochs=6, learning_rate=1e-3)
    trained = scratch.train(task, settings, Phases(Console(quiet=True)))
    losses = [epoch.train_loss for epoch in trained.epochs if epoch.train_loss is not None]
    assert losses[-1] < losses[0]
    pixels = np.stack([decode(task.images[at].path.read_bytes(), task.spec) for at in trained.held_out])
    np.testing.assert_allclose(trained.model(pixels, training=False).numpy(), trained.scores, atol=1e-4)
