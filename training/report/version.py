"""The report of a version: one HTML page, verdict first, its plots as files, and a CSV of every test image's answer."""

import csv
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from protos.manifest_pb2 import Manifest
from service.version import REPORT
from training import picture
from training.dataset import Dataset
from training.evaluation import Prediction
from training.report import sections
from training.report.document import Section, page
from training.report.verdict import Verdict, verdict
from training.task import Epoch

PREDICTIONS: Final = f"{REPORT}/predictions.csv"


def write(
    folder: Path,
    manifest: Manifest,
    dataset: Dataset,
    *,
    epochs: Sequence[Epoch],
    predictions: Sequence[Prediction],
    confusion: NDArray[Any],
    audit: str = "",
    mistakes: str = "",
) -> Verdict:
    """Writes report/index.html, the plots and report/predictions.csv into a version directory.

    Args:
        folder: the version directory.
        manifest: complete but for the hashes.
        dataset: for its rejected files.
        epochs: the curve of gradient training; empty where there is none.
        predictions: of the test images.
        confusion: counts [C,C], row is the label.
        audit: HTML that shows what the audit found, from `audit.page.section`.
        mistakes: HTML that shows wrong answers, from `gallery.section`.

    Returns:
        What the page says first.
    """
    (folder / REPORT).mkdir(parents=True)
    said = verdict(manifest, confusion)
    tried = sections.evidence_picture(manifest.recipe.evidence)
    curve = sections.curve_picture(epochs)
    matrix = picture.confusion("confusion", confusion, manifest.class_names) if confusion.any() else None
    for drawn in (tried, curve, matrix):
        if drawn is not None:
            drawn.write(folder / REPORT)
    parts = [
        Section("What was tried, and what won", sections.evidence(manifest, tried)),
        Section("Curves", sections.training(epochs, curve)),
        Section("By class", sections.classes(manifest)),
        Section("Confusion", sections.confusions(confusion, manifest.class_names, matrix)),
        Section("Most confident mistakes", mistakes),
        Section("Audit of the data", sections.audit(manifest, audit)),
        Section("Split", sections.split(manifest, dataset)),
        Section("Time", sections.phases(manifest)),
        Section("How to train this again", sections.recipe(manifest)),
    ]
    title = f"{escape(manifest.name)} version {manifest.version}"
    html = page(title, [sections.head(manifest, said)], parts)
    (folder / REPORT / "index.html").write_text(html, encoding="utf-8")
    _write_predictions(folder / PREDICTIONS, dataset, predictions)
    return said


def _write_predictions(file: Path, dataset: Dataset, predictions: Sequence[Prediction]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label", "predicted", "score", "sha256", "pixels_sha256"))
        for one in predictions:
            path = dataset.relative(one.image.path)
            writer.writerow(
                (path, one.image.label, one.predicted, f"{one.score:.6f}", one.image.sha256, one.pixels_sha256)
            )
