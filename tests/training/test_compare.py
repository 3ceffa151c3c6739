"""`compare` puts strategies on the same images, with `scratch` always among them; its page and pictures show all."""

import json
from pathlib import Path
from xml.etree import ElementTree

import keras
import pytest

from training import backbones, depths
from training.__main__ import main

# NumPy 2 about TensorFlow, in Keras' own code
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

_SVG = "{http://www.w3.org/2000/svg}"


def test_comparison_is_complete(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Every strategy asked for and `scratch` are in the table, in the JSON and in the picture, on the same images."""
    network = ("--backbone", "mobilenet:0.25", "--weights", "none", "--side", "32", "--epochs", "2")
    where = ("--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    logs = ("--tensorboard", str(tmp_path / "events"))
    assert main(["compare", str(photos), "--strategies", "linear", "svm", *where, *network, *logs]) == 0
    said = json.loads((tmp_path / "out" / "compare.json").read_text())
    rows = said["strategies"]
    assert [row["strategy"] for row in rows] == ["linear", "svm", "scratch"]
    assert len({row["test_images"] for row in rows}) == 1
    assert all(row["test_interval"][0] <= row["test_accuracy"] <= row["test_interval"][1] for row in rows)
    assert [len(row["curve"]) for row in rows] == [0, 0, 3]
    assert rows[2]["curve"][2].keys() >= {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy"}
    assert {"linear", "svm", "scratch"} <= _texts(tmp_path / "out" / "compare.svg")
    assert {"linear", "svm", "scratch", "scratch, training"} <= _texts(tmp_path / "out" / "compare-curves.svg")
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.count("<svg ") == 2
    assert "python -m training compare" in page
    assert "Without epochs, and so a level line: linear, svm." in page
    events = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "events").glob("*/*"))
    assert events == ["events/scratch/train", "events/scratch/validation"]
    assert "parameters trained" in capsys.readouterr().out
    assert list((tmp_path / "cache").glob("compare-*")) == []


def test_what_cannot_be_compared_is_said_at_once(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Before anything is trained, and with the flag to change."""
    where = ("--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    assert main(["compare", str(photos), "--strategies", "linear", *where, "--validation-fraction", "0"]) == 2
    said = capsys.readouterr()
    assert "there are none (--validation-fraction), and `scratch`" in said.err
    assert "linear" not in said.out


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
    assert set(layers) <= _texts(tmp_path / "out" / "sweep.svg")
    best = max(rows, key=lambda row: row["accuracy"])["layer"]
    assert f"Frozen up to <b>{best}</b>" in (tmp_path / "out" / "sweep.html").read_text()


def _texts(picture: Path) -> set[str | None]:
    assert picture.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    drawn = ElementTree.fromstring(picture.read_text())  # noqa: S314 - our own file
    return {text.text for text in drawn.iter(f"{_SVG}text")}
