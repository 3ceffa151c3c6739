"""The gallery shows the most confident mistakes, with maps where the version has them, in the right places."""

import re
from pathlib import Path

import numpy as np
import pytest

from protos.classifier_pb2 import ActivationMap, Error, LabelScore, Region, Result
from training import dataset, gallery
from training.dataset import Dataset
from training.evaluation import Prediction


class _Classifier:
    """Answers like a version, with maps or without, and remembers how it was asked."""

    def __init__(self, maps: bool) -> None:
        self.maps = maps
        self.asked: list[bool] = []

    def classify(self, images, top_k, *, activation_map=False):
        assert top_k >= 3  # else the label's score might be missing
        self.asked.append(activation_map)
        for _ in images:
            if activation_map and not self.maps:
                yield Result(error=Error(code="NO_ACTIVATION_MAP", detail="none"))
                continue
            result = Result(label="red", score=0.8)
            result.top.extend([LabelScore(label="red", score=0.8), LabelScore(label="blue", score=0.15)])
            if activation_map:
                region = Region(left=0, top=0, width=40, height=40)
                result.activation_map.CopyFrom(ActivationMap(height=1, width=2, values=[0, 1], region_px=region))
            yield result


@pytest.fixture(scope="module")
def found(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The photos, indexed."""
    return dataset.index(photos, tmp_path_factory.mktemp("cache"))


def _predictions(found: Dataset) -> list[Prediction]:
    """All said to be red, each surer than the one before; 40 of 60 wrong."""
    return [Prediction(image, "red", 0.5 + at / 200, "") for at, image in enumerate(found.images)]


def test_the_most_confident_mistakes_come_first(found: Dataset):
    """Twelve of them, none that was right, with what the label's score was."""
    mistakes = gallery.look(_Classifier(maps=True), _predictions(found))
    wrong = [one for one in _predictions(found) if one.image.label != "red"]
    assert [one.prediction for one in mistakes] == wrong[::-1][:12]
    by_label = {"blue": 0.15, "green": 0.0}
    assert all(one.label_score == pytest.approx(by_label[one.prediction.image.label]) for one in mistakes)
    assert all(one.overlay.shape == one.picture.shape and max(one.picture.shape) == 176 for one in mistakes)


def test_without_maps_there_are_pictures(found: Dataset):
    """A version that has none is asked again without, and the page says so."""
    classifier = _Classifier(maps=False)
    mistakes = gallery.look(classifier, _predictions(found))
    assert classifier.asked == [True, False]
    assert len(mistakes) == 12
    assert {one.overlay is None for one in mistakes} == {True}
    assert "no class activation maps" in gallery.section(mistakes, found)


def test_the_page_names_each_mistake(found: Dataset):
    """Two pictures inside the page for each, answer, label, file; nothing at all where all was right."""
    html = gallery.section(gallery.look(_Classifier(maps=True), _predictions(found)), found)
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', html)) == 24
    assert len(re.findall(r"said <b>red</b> 0\.\d+, label <b>(?:blue|green)</b> 0\.\d+", html)) == 12
    right = [one for one in _predictions(found) if one.image.label == "red"]
    assert gallery.section(gallery.look(_Classifier(maps=True), right), found) == ""


def test_a_map_is_painted_on_its_region():
    """Of a white picture of 60 x 40, seen from 10 to 50: shaded outside, dark on the cold side, bright on the warm."""
    region = Region(left=20, top=0, width=80, height=80)
    found = ActivationMap(height=1, width=2, values=[0, 1], region_px=region)
    painted = gallery.paint(np.full((40, 60, 3), 255, np.uint8), found, scale=0.5)
    shaded, cold, warm = (painted[:, columns].mean() for columns in (slice(0, 10), slice(10, 16), slice(44, 50)))
    assert shaded < cold < warm
    np.testing.assert_array_equal(painted[:, 50:], painted[:, :10])
