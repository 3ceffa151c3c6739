"""`auto` decides by evidence, in its budget, without the test images; `svm`, `multilayer` export what they fitted."""

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from rich.console import Console

from service.image import decode
from training import auto, backbones, depths, features, finetuning, multilayer, pixels, plan, svm
from training.backbones import Backbone
from training.errors import SettingError
from training.progress import OutOfTimeError, Phases
from training.settings import Settings
from training.task import Task, Trained

# NumPy 2 about TensorFlow, in Keras' own code
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

_SIDE_PX = 32


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """A small network with random weights."""
    keras.utils.set_random_seed(0)
    return backbones.load(backbones.find("MobileNet:0.25"), "none", _SIDE_PX)


@pytest.fixture(scope="module")
def task(make_task: Callable[[int], Task]) -> Task:
    """The photos at 32 px."""
    return make_task(_SIDE_PX)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def computed(task: Task, backbone: Backbone, cache: Path) -> dict[str, np.ndarray]:
    """Features of train and validation at every depth."""
    fitted = task.pick(task.split.train + task.split.validation)
    return features.compute_depths(fitted, backbone, task.spec, cache, depths.choose(backbone))


def _settings(cache: Path, **changed: object) -> Settings:
    return replace(Settings(Path(), Path(), "tints", cache=cache), **changed)


def _auto(task: Task, backbone: Backbone, settings: Settings, clock: Callable[[], float] | None = None) -> Trained:
    phases = Phases(Console(quiet=True))
    return auto.train(task, backbone, settings, phases, *([clock] if clock else []))


def test_depths_are_the_network_s(task: Task, backbone: Backbone, computed: dict[str, np.ndarray]):
    """Each depth's features are the mean over the picture of that layer's own output."""
    position = (task.split.train + task.split.validation)[0]
    pixels = decode(task.images[position].path.read_bytes(), task.spec)[None]
    assert len(computed) >= 4
    for layer, values in computed.items():
        if layer != depths.FINAL:
            trunk = keras.Model(backbone.network.input, backbone.network.get_layer(layer).output)
            expected = trunk(backbone.prepare(pixels), training=False).numpy().mean(axis=(1, 2))
            np.testing.assert_allclose(values[0], expected[0], rtol=1e-3, atol=1e-4)


def test_cached_depths_are_used_again(task: Task, backbone: Backbone, tmp_path: Path):
    """What one depth lacks is computed for that depth; what is there is read."""
    layers = depths.choose(backbone)
    counted: list[int] = []

    def compute(some: tuple[str, ...], count: int) -> int:
        counted.clear()
        features.compute_depths(
            task.images[:count], backbone, task.spec, tmp_path, some, on_progress=lambda done, _: counted.append(done)
        )
        return max(counted, default=0)

    assert compute(layers[:2], 10) == 10
    assert compute(layers[:2], 10) == 0
    assert compute(layers, 10) == 10
    assert compute(layers, 12) == 2


def test_openvino_gives_the_same_features(backbone: Backbone, monkeypatch: pytest.MonkeyPatch):
    """OpenVINO in float32 and TensorFlow differ by rounding only, at every depth, in order, for any batch."""
    from training import forward  # noqa: PLC0415 - beside what it is compared with

    pytest.importorskip("openvino")
    model = depths.model(backbone, depths.choose(backbone))
    pixels = np.random.default_rng(0).integers(0, 256, (7, _SIDE_PX, _SIDE_PX, 3)).astype(np.uint8)
    monkeypatch.setattr(forward, "FEWEST_FOR_OPENVINO", 1000)
    expected = forward.build(model, 7)(pixels)
    monkeypatch.setattr(forward, "FEWEST_FOR_OPENVINO", 1)
    fast = forward.build(model, 7)
    np.testing.assert_allclose(fast(pixels), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fast(pixels[:3]), expected[:3], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strategy", [svm, multilayer])
def test_exported_scores_are_the_fitted_ones(strategy, task: Task, backbone: Backbone, computed: dict[str, np.ndarray]):
    """The model from pixels to scores says what scikit-learn's coefficients say of the features, to 1e-4."""
    trained = strategy.train(task, backbone, computed)
    fitted = task.split.train + task.split.validation
    pixels = np.stack([decode(task.images[at].path.read_bytes(), task.spec) for at in fitted[:8]])
    layers = trained.hyperparameters.get("layer", ", ".join(computed)).split(", ")
    head = trained.model.get_layer("head")
    kernel, bias = head.get_weights()
    logits = np.hstack([computed[layer][:8] for layer in layers]) @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(trained.model(pixels, training=False).numpy(), expected, atol=1e-4)


def test_svm_is_scikit_learn_s(task: Task, computed: dict[str, np.ndarray]):
    """The head's logits are the machine's own margins, divided by the temperature."""
    fitted = list(task.split.train + task.split.validation)
    values = computed[next(iter(computed))]
    groups = [task.groups[position] for position in fitted]
    head = svm.fit(values, task.labels[fitted], groups, task.classes)
    standardised = (values - values.mean(axis=0)) / values.std(axis=0)
    margins = svm.MACHINE.make(head.strength).fit(standardised, task.labels[fitted]).decision_function(standardised)
    np.testing.assert_allclose(head.logits(values) * head.temperature, margins, atol=1e-2)


def test_svm_takes_an_early_layer(task: Task, backbone: Backbone, computed: dict[str, np.ndarray]):
    """The layer comes from the evidence, best first, and is never the last."""
    trained = svm.train(task, backbone, computed)
    assert trained.hyperparameters["layer"] in svm.early(computed)
    assert trained.tried[0].candidate.startswith(f"svm on {trained.hyperparameters['layer']},")
    assert len(trained.tried) == len(computed) - 1


def test_same_seed_same_choice(task: Task, backbone: Backbone, cache: Path):
    """Twice the same winner, with the same weights bit for bit."""
    first, second = (_auto(task, backbone, _settings(cache)) for _ in range(2))
    assert first.strategy == second.strategy
    for one, other in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_record_is_complete(task: Task, backbone: Backbone, cache: Path):
    """The table starts with the winner; budget, case, reason and LogME are recorded."""
    trained = _auto(task, backbone, _settings(cache))
    assert trained.tried[0].candidate.startswith(trained.strategy)
    assert all(one.images and one.parameters for one in trained.tried)
    decision = trained.decision
    assert decision.reason.startswith(trained.tried[0].candidate.split(",")[0])
    assert (decision.size, decision.domain) in {
        (size, domain) for size in ("large", "small") for domain in ("similar", "different")
    }
    assert decision.rule
    assert decision.budget_s >= decision.spent_s > 0
    assert list(decision.logme) == list(depths.choose(backbone))


def test_test_images_are_never_looked_at(task: Task, backbone: Backbone, cache: Path):
    """With the test images' files gone and their labels changed, nothing is different."""
    test = set(task.split.test)
    images = [
        replace(image, path=Path("nowhere"), sha256="00" * 32) if at in test else image
        for at, image in enumerate(task.images)
    ]
    labels = task.labels.copy()
    labels[list(test)] = 0
    blind = replace(task, images=images, labels=labels)
    one, other = _auto(task, backbone, _settings(cache)), _auto(blind, backbone, _settings(cache))
    assert one.strategy == other.strategy
    for mine, theirs in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("rung", [1, 2])
def test_spent_budget_leaves_the_linear_head(
    rung: int, task: Task, backbone: Backbone, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """When every look at the clock is ten seconds later, one head is fitted, and fine-tuning is not begun.

    So it is where heads are tried on a part of the images first.
    """
    monkeypatch.setattr(plan, "first_rung", lambda labels, _: np.arange(0, len(labels), rung))
    now = iter(range(0, 10_000_000, 10))
    monkeypatch.setattr(plan, "refusal", lambda *_: "")
    trained = _auto(task, backbone, _settings(cache, time_budget=15.0), lambda: float(next(now)))
    assert [one.candidate for one in trained.tried] == ["linear"]
    assert not trained.decision.fine_tuning.startswith("tried")


def test_one_image_of_each_class_leaves_the_linear_head(task: Task, backbone: Backbone, cache: Path):
    """Without folds nothing can be compared, so nothing but `linear` is tried."""
    trained = _auto(_with_one_image_of(task, range(task.classes)), backbone, _settings(cache))
    assert [one.candidate for one in trained.tried] == ["linear"]


def test_one_image_of_a_class_judges_nothing(task: Task, backbone: Backbone, cache: Path):
    """Heads are compared on the images of the other classes, and those are what the version is said to be judged on."""
    few = _with_one_image_of(task, [0])
    trained = _auto(few, backbone, _settings(cache))
    assert len(trained.tried) > 1
    assert set(trained.held_out) == {at for at in few.split.train if few.labels[at] != 0}
    assert {one.images for one in trained.tried} == {len(trained.held_out)}


def _with_one_image_of(task: Task, labels: Iterable[int]) -> Task:
    """The same, with only one training image of these classes, and none for validation."""
    train = [
        at
        for number, at in enumerate(task.split.train)
        if task.labels[at] not in labels or task.labels[at] not in task.labels[list(task.split.train[:number])]
    ]
    return replace(task, split=type(task.split)(tuple(train), (), task.split.test, ()))


def test_finetuning_is_tried_when_it_can_win(
    task: Task, backbone: Backbone, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is tried on a copy: the backbone that the other candidates export stays as it is."""
    monkeypatch.setattr(plan, "refusal", lambda *_: "")
    before = [weight.copy() for weight in backbone.network.get_weights()]
    trained = _auto(task, backbone, _settings(cache, time_budget=600.0, epochs=2, unfreeze=1))
    assert trained.decision.fine_tuning.startswith("tried, with ")
    assert any(one.candidate == "partial, 1 blocks, 2 epochs" for one in trained.tried)
    for mine, theirs in zip(before, backbone.network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


class _Clock:
    """A clock that goes on by so many seconds with every look."""

    def __init__(self, step_s: float) -> None:
        self._step_s, self._now = step_s, 0.0

    def __call__(self) -> float:
        self._now += self._step_s
        return self._now


def test_activations_that_take_too_long_are_given_up(task: Task, backbone: Backbone, cache: Path):
    """When the first batches say that half of the time would not do, nothing is trained."""
    settings = _settings(cache, strategy="partial", unfreeze=1)
    phases = Phases(Console(quiet=True), _Clock(30.0)).within(100.0)
    with pytest.raises(OutOfTimeError):
        finetuning.train(task, _copied(backbone), _final(task, backbone, cache), settings, phases)


def test_a_quota_that_leaves_no_room_for_activations_is_a_setting_s_error(
    task: Task, backbone: Backbone, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """What `auto` answers with its heads; nothing half is left."""

    def refuse(*_: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    final = _final(task, backbone, cache)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    settings = _settings(cache, strategy="partial", unfreeze=1)
    with pytest.raises(SettingError, match=r"MiB of disk in .* for the activations: Disk quota exceeded"):
        finetuning.train(task, _copied(backbone), final, settings, Phases(Console(quiet=True)))
    assert not list(cache.rglob("*.f16"))


def test_training_ends_at_the_deadline(task: Task, backbone: Backbone, cache: Path):
    """The epoch that it cuts short is the last one, and what that has learnt is kept if it is better."""
    settings = _settings(cache, strategy="full", epochs=50)
    phases = Phases(Console(quiet=True), _Clock(1.0)).within(10.0)
    trained = finetuning.train(task, _copied(backbone), _final(task, backbone, cache), settings, phases)
    assert 1 <= len(trained.epochs) - 1 < 5
    assert np.isfinite(trained.scores).all()


def test_after_the_deadline_nothing_is_trained(task: Task, backbone: Backbone, cache: Path):
    """The head that training would start from is what is left."""
    settings = _settings(cache, strategy="full", epochs=50)
    phases = Phases(Console(quiet=True), _Clock(10.0)).within(1.0)
    trained = finetuning.train(task, _copied(backbone), _final(task, backbone, cache), settings, phases)
    assert len(trained.epochs) == 1


def test_no_deadline_changes_nothing(task: Task, backbone: Backbone, cache: Path):
    """Without one, every epoch that was asked for is trained."""
    settings = _settings(cache, strategy="partial", unfreeze=1, epochs=2)
    phases = Phases(Console(quiet=True), _Clock(1000.0))
    trained = finetuning.train(task, _copied(backbone), _final(task, backbone, cache), settings, phases)
    assert len(trained.epochs) - 1 == 2


def test_time_lost_before_the_first_step_does_not_shorten_the_schedule(
    task: Task, backbone: Backbone, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where there is time for all epochs at the pace of the steps, the curve is that of a run without a deadline."""
    settings, final = _settings(cache, strategy="full", epochs=2), _final(task, backbone, cache)
    unhurried = Phases(Console(quiet=True), lambda: 0.0)
    plain = finetuning.train(task, _copied(backbone), final, settings, unhurried)
    loader = pixels.loader

    def slow(*given: Any) -> Any:
        load = loader(*given)

        def loaded(positions: Any) -> Any:
            now[0] = 600.0
            return load(positions)

        return loaded

    now = [0.0]
    monkeypatch.setattr(finetuning.pixels, "loader", slow)
    hurried = Phases(Console(quiet=True), lambda: now[0]).within(1000.0)
    timed = finetuning.train(task, _copied(backbone), final, settings, hurried)
    assert timed.epochs == plain.epochs


def _final(task: Task, backbone: Backbone, cache: Path) -> np.ndarray:
    return features.compute(task.pick(task.split.train + task.split.validation), backbone, task.spec, cache)


def _copied(backbone: Backbone) -> Backbone:
    copy = backbones.load(backbone.family, "none", backbone.side_px)
    copy.network.set_weights(backbone.network.get_weights())
    return copy
