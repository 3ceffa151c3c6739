"""What tests of training share: small photos that can be told apart, made in a moment."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from service.image import ImageSpec
from training import dataset, duplicates, split
from training.task import Task

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three class folders with 20 pictures each: blurred noise of 40 to 90 px, tinted by its class."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(7)
    for label, colour in COLOURS.items():
        (root / label).mkdir()
        for number in range(20):
            coarse = random.integers(0, 256, (6, 6, 3)).astype(np.uint8)
            width, height = (int(side) for side in random.integers(40, 91, 2))
            noise = Pillow.fromarray(coarse).resize((width, height), Pillow.Resampling.BICUBIC)
            tinted = Pillow.blend(noise, Pillow.new("RGB", noise.size, colour), 0.5)
            tinted.save(root / label / f"{number:02d}.{'png' if number % 5 == 0 else 'jpg'}")
    return root


@pytest.fixture(scope="session")
def make_task(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Task]:
    """Makes the task of `photos` at a side."""
    found = dataset.index(photos, tmp_path_factory.mktemp("cache"))
    groups = duplicates.group(found.images)
    sides = split.split(found.images, groups)
    number = {name: at for at, name in enumerate(found.class_names)}
    labels = np.array([number[image.label] for image in found.images])
    return lambda side_px: Task(found.images, labels, groups, found.class_names, sides, ImageSpec(side_px), 0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared material beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the shared material (../shared) is not here")
    return SHARED
