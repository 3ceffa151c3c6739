"""Families of keras.applications go the whole way; a cheap one here, all of them by `make families`."""

from pathlib import Path

import keras
import pytest

from benchmarks.families import SMALLEST, draw
from service.version import read_version, verify_files
from training import backbones
from training.__main__ import main

# NumPy 2 about TensorFlow, in Keras' own code
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def test_every_family_is_in_the_list():
    """`make families` tries one member of each module of keras.applications that has networks."""
    modules = {backbones.find(name).build.__module__ for name in backbones.names()}
    assert {backbones.find(name).build.__module__ for name in SMALLEST} == modules


@pytest.mark.parametrize("name", ["MobileNetV3Small"])
def test_a_family_trains_exports_and_answers(name: str, tmp_path: Path):
    """One epoch of its last block from random weights; real engines load the version and answer the test images."""
    draw(tmp_path / "photos")
    keras.backend.clear_session()
    arguments = [
        "train", str(tmp_path / "photos"), "--models", str(tmp_path / "models"), "--cache", str(tmp_path / "cache"),
        "--name", "colours", "--backbone", name, "--weights", "none", "--side", str(SMALLEST[name]),
        "--strategy", "partial", "--unfreeze", "1", "--epochs", "1", "--engine", "openvino/f32",
    ]  # fmt: skip
    assert main(arguments) == 0
    version = read_version(tmp_path / "models" / "colours" / "1")
    verify_files(version)
    assert version.manifest.recipe.backbone == name
    assert version.manifest.metrics.test.images == 2
    assert version.manifest.metrics.test.engine == "openvino/f32"
