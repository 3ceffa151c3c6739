"""`compare` puts strategies on the same images, with `scratch` always among them, and its picture is valid SVG."""

import json
from pathlib import Path
from xml.etree import ElementTree

import keras
import pytest

from training import backbones, depths
from training.__main__ import main
from training.picture import Bar, draw

# NumPy 2 about TensorFlow, in Keras' own code
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

_SVG = "{http://www.w3.org/2000/svg}"


def test_comparison_is_complete(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Every strategy asked for and `scratch` are in the table, in the JSON and in the picture, on the same images."""
    network = ("--backbone", "mobilenet:0.25", "--weights", "none", "--side", "32", "--epochs", "2")
    where = ("--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    assert main(["compare", str(photos), "--strategies", "linear", "svm", *where, *network]) == 0
    said = json.loads((tmp_path / "out" / "compare.json").read_text())
    rows = said["strategies"]
    assert [row["strategy"] for row in rows] == ["linear", "svm", "scratch"]
    assert len({row["test_images"] for row in rows}) == 1
    assert all(row["test_interval"][0] <= row["test_accuracy"] <= row["test_interval"][1] for row in rows)
    assert [len(row["validation_curve"]) for row in rows] == [0, 0, 3]
    picture = ElementTree.fromstring((tmp_path / "out" / "compare.svg").read_text())  # noqa: S314 - our own file
    texts = [text.text for text in picture.iter(f"{_SVG}text")]
    assert {"linear", "svm", "scratch"} <= set(texts)
    assert len(list(picture.iter(f"{_SVG}polyline"))) == 1
    assert "parameters trained" in capsys.readouterr().out
    assert list((tmp_path / "cache").glob("compare-*")) == []


def test_sweep_shows_every_boundary(photos: Path, tmp_path: Path):
    """One row per boundary and one for the last features, in the order of the network, in JSON and picture."""
    network = ("--backbone", "mobilenet:0.25", "--weights", "none", "--side", "32")
    where = ("--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    assert main(["sweep", str(photos), *where, *network]) == 0
    rows = json.loads((tmp_path / "out" / "sweep.json").read_text())["depths"]
    keras.utils.set_random_seed(0)
    layers = depths.every(backbones.load(backbones.find("mobilenet:0.25"), "none", 32))
    assert [row["layer"] for row in rows] == list(layers)
    assert all(row["interval"][0] <= row["accuracy"] <= row["interval"][1] for row in rows)
    picture = ElementTree.fromstring((tmp_path / "out" / "sweep.svg").read_text())  # noqa: S314 - our own file
    assert set(layers) <= {text.text for text in picture.iter(f"{_SVG}text")}


def test_names_are_escaped():
    """A name with markup in it is shown, not obeyed; bars are as long as their shares."""
    picture = ElementTree.fromstring(draw("<b>", [Bar("a & <b>", 0.5, 0.4, 0.6, "")], "curves", "epochs"))  # noqa: S314
    assert "a & <b>" in [text.text for text in picture.iter(f"{_SVG}text")]
    background, bar = list(picture.iter(f"{_SVG}rect"))[1:]
    assert float(bar.get("width", 0)) == float(background.get("width", 0)) / 2
