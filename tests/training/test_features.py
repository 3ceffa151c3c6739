"""Features are computed once, for exactly what they depend on, and a killed or damaged cache never gives wrong ones."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from service.image import ImageSpec, decode
from training import backbones, features, graph
from training.backbones import Backbone
from training.errors import DataError
from training.task import Task


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """A small network with random weights."""
    keras.utils.set_random_seed(0)
    return backbones.load(backbones.find("MobileNet:0.25"), "none", 32)


@pytest.fixture(scope="module")
def task(make_task: Callable[[int], Task]) -> Task:
    """The photos at 32 px."""
    return make_task(32)


class _Counter:
    """Counts how many images were computed."""

    def __init__(self) -> None:
        self.computed = 0

    def __call__(self, done: int, total: int) -> None:
        self.computed = done
        assert done <= total


def test_each_image_is_computed_once(backbone: Backbone, task: Task, tmp_path: Path):
    """A second call computes nothing, gives the same numbers, and in whatever order is asked for."""
    first, second, third = _Counter(), _Counter(), _Counter()
    images = task.images
    computed = features.compute(images[:40], backbone, task.spec, tmp_path, on_progress=first)
    again = features.compute(images[:40][::-1], backbone, task.spec, tmp_path, on_progress=second)
    more = features.compute(images[30:50], backbone, task.spec, tmp_path, on_progress=third)
    assert (first.computed, second.computed, third.computed) == (40, 0, 10)
    np.testing.assert_array_equal(again, computed[::-1])
    np.testing.assert_array_equal(more[:10], computed[30:])


def test_features_are_the_network_s(backbone: Backbone, task: Task, tmp_path: Path):
    """What is cached is what Keras' own model says of the service's own pixels."""
    images = task.images[:3]
    pixels = np.stack([decode(image.path.read_bytes(), task.spec) for image in images])
    expected = backbone.network(backbone.prepare(pixels), training=False).numpy()
    np.testing.assert_allclose(features.compute(images, backbone, task.spec, tmp_path), expected, rtol=1e-3, atol=1e-4)


def test_key_is_all_that_features_depend_on(backbone: Backbone, task: Task, tmp_path: Path):
    """Another crop or other weights never find these features; a renamed file does."""
    image = task.images[0]
    features.compute([image], backbone, task.spec, tmp_path)
    renamed = tmp_path / "renamed.bin"
    renamed.write_bytes(image.path.read_bytes())
    keras.utils.set_random_seed(1)
    other = backbones.load(backbone.family, "none", 32)
    for count, (network, spec, asked) in enumerate(
        [
            (backbone, task.spec, dataclasses.replace(image, path=renamed)),
            (backbone, ImageSpec(32, "crop"), image),
            (other, task.spec, image),
        ]
    ):
        counter = _Counter()
        features.compute([asked], network, spec, tmp_path, on_progress=counter)
        assert counter.computed == (count > 0)


def test_damaged_shard_is_computed_anew(backbone: Backbone, task: Task, tmp_path: Path):
    """A flipped bit or a cut end is noticed; the rows are computed again."""
    images = task.images[:8]
    right = features.compute(images, backbone, task.spec, tmp_path)
    (shard,) = (tmp_path / "features").rglob("*.npz")
    whole = shard.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], b""):
        shard.write_bytes(damaged)
        counter = _Counter()
        again = features.compute(images, backbone, task.spec, tmp_path, on_progress=counter)
        assert counter.computed == 8
        np.testing.assert_array_equal(again, right)


def test_interrupted_run_leaves_whole_shards_only(
    backbone: Backbone, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What was finished before the interruption is kept, nothing half is there."""
    monkeypatch.setattr(features, "_SHARD", 32)

    def interrupt(done: int, _total: int) -> None:
        if done > 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features.compute(task.images, backbone, task.spec, tmp_path, on_progress=interrupt)
    assert [file.suffix for file in (tmp_path / "features").rglob("*") if file.is_file()] == [".npz"]
    counter = _Counter()
    features.compute(task.images, backbone, task.spec, tmp_path, on_progress=counter)
    assert counter.computed == len(task.images) - 32


def test_changed_file_is_an_error(backbone: Backbone, task: Task, tmp_path: Path):
    """Features are never stored under the hash of a file that is another one by now."""
    changed = tmp_path / "changed.jpg"
    changed.write_bytes(task.images[1].path.read_bytes())
    with pytest.raises(DataError, match="was changed"):
        features.compute([dataclasses.replace(task.images[0], path=changed)], backbone, task.spec, tmp_path)
    changed.unlink()
    with pytest.raises(DataError, match="could be read a moment ago"):
        features.compute([dataclasses.replace(task.images[0], path=changed)], backbone, task.spec, tmp_path)


def test_batches_do_not_matter(backbone: Backbone, task: Task, tmp_path: Path):
    """An image's features do not depend on its neighbours in the batch."""
    together = features.compute(task.images[:40], backbone, task.spec, tmp_path / "together")
    function = graph.frozen(backbone.features())
    pixels = decode(task.images[35].path.read_bytes(), task.spec)
    np.testing.assert_allclose(graph.run(function, pixels[None])[0], together[35], rtol=1e-4, atol=1e-5)
