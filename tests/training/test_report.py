"""The report: a verdict that says the right next step, and pictures that show what they are given."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from protos.manifest_pb2 import AuditFinding, ChampionComparison, ClassImages, Manifest
from training import evaluation, picture, record
from training.picture import Line, Panel, Picture, Row
from training.report import sections
from training.report.verdict import verdict
from training.task import Epoch

_SVG = "{http://www.w3.org/2000/svg}"
_NAMES = ("cat", "dog")


def _manifest(counts: np.ndarray) -> Manifest:
    labels, answers = (np.repeat(at, counts.flatten()) for at in np.indices(counts.shape).reshape(2, -1))
    result = Manifest(name="pets", version=2, class_names=_NAMES)
    result.metrics.test.CopyFrom(evaluation.evaluate(labels, answers, _NAMES, "openvino/f32"))
    result.data.test = int(counts.sum())
    result.data.classes.extend(
        ClassImages(label=name, train=50, test=int(row.sum())) for name, row in zip(_NAMES, counts, strict=True)
    )
    return result


@pytest.mark.parametrize(
    ("counts", "sure", "after"),
    [
        ([[0, 0], [0, 0]], "no test images", "give it test images"),
        ([[12, 8], [8, 12]], "rough guess", "do not serve it yet"),
        ([[10, 0], [1, 9]], "rough guess", "more than 20 images"),
        ([[400, 0], [0, 400]], "measured closely", "serve it"),
        ([[90, 0], [20, 70]], "fair estimate", "images of dog would help most: 20 of its 90 test images were missed"),
        ([[90, 0], [0, 0]], "measured closely", "do not serve it yet"),
    ],
)
def test_verdict_says_how_good_how_sure_and_what_next(counts: list[list[int]], sure: str, after: str):
    """From nothing measured to nothing left to do."""
    said = verdict(_manifest(np.array(counts)), np.array(counts))
    assert sure in said.sure
    assert after in said.after
    assert after in said.sentence


def test_verdict_minds_champion_audit_and_untested_classes():
    """A better champion stands above everything; then errors of the audit; then classes without a test."""
    counts = np.array([[400, 0], [0, 400]])
    manifest = _manifest(counts)
    manifest.data.classes[1].test = 0
    assert verdict(manifest, counts).after.startswith("give it test images of every class")
    manifest.audit.findings.append(AuditFinding(kind="leak", severity="error", title="pictures on both sides"))
    assert "pictures on both sides" in verdict(manifest, counts).after
    manifest.champion.CopyFrom(ChampionComparison(version=1, worse=True))
    assert verdict(manifest, counts).after.startswith("keep version 1")


def test_classes_without_test_images_are_named():
    """With the reason: DATA's own split, or too few images that may be parted; and in the report."""
    manifest = _manifest(np.array([[30, 0], [0, 0]]))
    assert record.untested(manifest.data).startswith("dog: their images are in too few blocks")
    assert "dog: their images are in too few blocks" in sections.classes(manifest)
    manifest.data.given_splits.append("test")
    assert "DATA's own test images have none" in record.untested(manifest.data)
    manifest.data.test = 0
    assert record.untested(manifest.data) == ""


def test_pictures_show_what_they_are_given(tmp_path: Path):
    """Names and numbers are text of valid SVG, markup and dollars too; the PNG is there; nothing differs next time."""
    counts = np.array([[3, 1], [0, 0]])
    odd = "$a & <b> 猫"
    rows = [Row(odd, 0.5, (0.4, 0.6), "0.5"), Row("other", 1.0, (0.9, 1.0), winner=True)]
    drawn = (
        picture.intervals("rows", "title", rows, "accuracy"),
        picture.confusion("matrix", counts, [odd, "other"]),
        picture.curves("lines", "title", [Panel("loss", [Line(odd, [(0, 1.0), (1, 0.5)], 0)])], "epoch", mark=1),
    )
    for one in drawn:
        one.write(tmp_path)
        assert (tmp_path / f"{one.name}.png").read_bytes().startswith(b"\x89PNG")
        assert odd in _texts((tmp_path / f"{one.name}.svg").read_text(encoding="utf-8"))
    assert {"3", "1"} <= _texts(drawn[1].svg)
    assert picture.intervals("rows", "title", rows, "accuracy") == drawn[0]


def test_pictures_take_the_page_s_colours():
    """In a page no colour is fixed, nothing is fetched, and two pictures share no id."""
    one, two = (picture.confusion(name, np.array([[3, 1], [1, 3]]), _NAMES).html() for name in ("one", "two"))
    assert "#" not in one.replace('href="#', "").replace("url(#", "")
    assert "http" not in one
    ids = [set(re.findall(r'\bid="([^"]+)"', html)) for html in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_thousand_classes_are_drawn():
    """The matrix of many classes has no names, but every cell with something in it."""
    counts = np.zeros((1000, 1000), int)
    counts[range(1000), range(1000)] = 2
    counts[3, 5] = 1
    drawn = ElementTree.fromstring(picture.confusion("big", counts, [str(at) for at in range(1000)]).svg)  # noqa: S314
    assert len([node for node in drawn.iter(f"{_SVG}g") if (node.get("id") or "").startswith("patch")]) >= 1001


def test_curves_have_both_sides_and_the_kept_epoch():
    """Training and validation, loss and accuracy; of the epochs that beat the start the lowest loss is named."""
    epochs = [
        Epoch(0, None, 2.0, 0.2),
        Epoch(1, 1.0, 0.5, 0.9, 0.8, beats_start=True),
        Epoch(2, 0.5, 0.7, 0.8, 0.9, beats_start=True),
    ]
    drawn = sections.curve_picture(epochs)
    assert isinstance(drawn, Picture)
    assert {"Loss", "Accuracy", "training", "validation"} <= _texts(drawn.svg)
    assert "Epoch 1 was kept: its validation loss is the lowest" in sections.training(epochs, drawn)
    assert sections.curve_picture(epochs[:1]) is None
    assert "Epoch 1 was kept: its validation loss beats that" in sections.training(epochs[:2], drawn)
    level = [epochs[0], Epoch(1, 1.0, 1.9, 0.9, 0.8)]
    assert "Epoch 0 was kept: no other that could be kept beats it by enough" in sections.training(level, drawn)


def _texts(svg: str) -> set[str | None]:
    return {text.text for text in ElementTree.fromstring(svg).iter(f"{_SVG}text")}  # noqa: S314 - our own file
