"""The parts of a version's report, each made from the manifest and what else it shows."""

from collections.abc import Sequence
from html import escape
from typing import Any, Final

from numpy.typing import NDArray

from protos.manifest_pb2 import Evidence, Manifest
from service.version import REPORT
from training import champion, record
from training.dataset import Dataset, Rejected
from training.picture import Line, Panel, Picture, Row, curves, intervals
from training.report.document import bar, bounds, interval, table
from training.report.verdict import Verdict
from training.task import Epoch, kept

_MOST_REJECTED: Final = 200
_MOST_CONFUSED: Final = 12
_MOST_ROWS: Final = 12


def head(manifest: Manifest, said: Verdict) -> str:
    """Verdict first, then the facts that one asks for next."""
    recipe, test = manifest.recipe, manifest.metrics.test
    network = recipe.backbone if recipe.backbone == "none" else f"{recipe.backbone}, weights {recipe.weights}"
    facts = [
        ("strategy", recipe.strategy),
        ("network", network),
        ("parameters trained", f"{recipe.trained_parameters:,} of {recipe.total_parameters:,}"),
        ("images", f"{manifest.data.images} in {len(manifest.class_names)} classes"),
        ("trained in", _duration(sum(phase.seconds for phase in recipe.phases))),
        ("test answered by", f"the exported version on {test.engine}" if test.images else "nobody"),
    ]
    if manifest.metrics.HasField("quantized"):
        again = manifest.metrics.quantized
        found = f"{again.accuracy:.1%} right" if again.images else "not tested"
        facts.append(("in 8 bits", f"{found} on {again.engine}"))
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    share = f"<b>{said.share}</b> " if said.share else ""
    compared = champion.describe(manifest.champion) if manifest.HasField("champion") else ""
    subject = "Champion: " if manifest.champion.incomparable else "This version is "
    return (
        f"<h1>{escape(manifest.name)}, version {manifest.version}</h1>"
        f"<p class=verdict>{share}{escape(said.good)}; {escape(said.sure)}.</p>"
        f"<p class=next><strong>Next:</strong> {escape(said.after)}.</p>"
        f"{f'<p>{subject}{escape(compared)}.</p>' if compared else ''}<dl class=facts>{tiles}</dl>"
    )


def evidence_picture(tried: Sequence[Evidence]) -> Picture | None:
    """Accuracy of the best candidates with intervals; None where there are none."""
    if not tried:
        return None
    rows = [
        Row(one.candidate, one.validation_accuracy, one.accuracy_interval, f"{one.validation_accuracy:.1%}", one.winner)
        for one in tried[:_MOST_ROWS]
    ]
    return intervals("evidence", "What was tried: accuracy on held-out images, 95 % intervals", rows, "accuracy")


def evidence(manifest: Manifest, picture: Picture | None) -> str:
    """What was tried, which won and why."""
    if picture is None:
        return ""
    rows = [
        (
            escape(one.candidate) + (" <span class=winner>exported</span>" if one.winner else ""),
            f"{one.validation_accuracy:.4f} <small>{bounds(one.accuracy_interval)}</small>",
            one.images,
            f"{one.seconds:.1f}",
            f"{one.parameters:,}",
        )
        for one in manifest.recipe.evidence
    ]
    winner = next((at for at, one in enumerate(manifest.recipe.evidence) if one.winner), None)
    columns = ("candidate", "accuracy, 95 % interval", "images", "seconds", "parameters trained")
    return (
        f"{_decision(manifest)}{picture.html()}<p>Best first, by log-loss on images that the candidate was not fitted "
        f"on.</p>{table(columns, rows, winner)}"
    )


def _decision(manifest: Manifest) -> str:
    if not manifest.recipe.HasField("decision"):
        return ""
    said = manifest.recipe.decision
    case = said.textbook_case
    depths = ", ".join(f"{one.layer} {one.logme:.3f}" for one in said.depths)
    return (
        f"<p><strong>{escape(said.reason)}</strong></p>"
        f"<p>Textbook case: {escape(case.size)} data, {escape(case.domain)} domain. {escape(case.rule)}.</p>"
        f"<p>Fine-tuning was {escape(said.fine_tuning)}.</p>"
        f"<p>Time: {said.spent_seconds:g} of {said.budget_seconds:g} s.</p>"
        f"<details><summary>LogME by depth</summary><p>{escape(depths)}</p></details>"
    )


def curve_picture(epochs: Sequence[Epoch]) -> Picture | None:
    """Loss and accuracy by epoch; None without gradient training."""
    if len(epochs) < 2:
        return None
    panels = [
        Panel("Loss", [_line(epochs, "train_loss", 1), _line(epochs, "validation_loss", 0)]),
        Panel("Accuracy", [_line(epochs, "train_accuracy", 1), _line(epochs, "validation_accuracy", 0)], shares=True),
    ]
    return curves("curves", "loss and accuracy by epoch", panels, "epoch", kept(epochs).number)


def _line(epochs: Sequence[Epoch], what: str, number: int) -> Line:
    side, _ = what.split("_")
    values = [(one.number, getattr(one, what)) for one in epochs]
    points = [(at, value) for at, value in values if value is not None]
    return Line("training" if side == "train" else side, points, number, dashed=side == "train")


def training(epochs: Sequence[Epoch], picture: Picture | None) -> str:
    """The curves, and their numbers."""
    if picture is None:
        return ""
    rows = [
        (
            one.number,
            *("" if value is None else f"{value:.4f}" for value in (one.train_loss, one.train_accuracy)),
            f"{one.validation_loss:.4f}",
            f"{one.validation_accuracy:.4f}",
        )
        for one in epochs
    ]
    best = kept(epochs)
    others = sum(one.beats_start for one in epochs)
    why = "its validation loss is the lowest" if others > 1 else "its validation loss beats that of epoch 0 by enough"
    why = why if best.number else "no other that could be kept beats it by enough"
    columns = ("epoch", "training loss", "training accuracy", "validation loss", "validation accuracy")
    return (
        f"<p>Epoch 0 is before training. Epoch {best.number} was kept: {why}.</p>"
        f"{picture.html()}<details><summary>Numbers</summary>{table(columns, rows, epochs.index(best))}</details>"
    )


def classes(manifest: Manifest) -> str:
    """Precision and recall of each class with intervals, the worst recall first."""
    trained = {one.label: one.train for one in manifest.data.classes}
    tested = sorted(manifest.metrics.test.classes, key=lambda one: (not one.images, one.recall))
    if not manifest.metrics.test.images:
        return ""
    rows = [
        (
            escape(one.label),
            trained.get(one.label, ""),
            one.images or "<b>none</b>",
            interval(one.recall, one.recall_interval),
            interval(one.precision, one.precision_interval),
        )
        for one in tested
    ]
    return (
        "<p>Recall: of the images of this class, the share that was found. Precision: of the answers with this class, "
        "the share that was right. Each with its 95 % Wilson interval in per cent.</p>"
        f"{_untested(manifest)}<div class=classes>"
        f"{table(('class', 'training images', 'test images', 'recall', 'precision'), rows)}</div>"
    )


def confusions(counts: NDArray[Any], class_names: Sequence[str], picture: Picture | None) -> str:
    """The matrix, and the commonest mistakes in words."""
    if picture is None:
        return ""
    wrong = [(int(counts[row, column]), row, column) for row, column in zip(*counts.nonzero(), strict=True)]
    wrong = sorted((one for one in wrong if one[1] != one[2]), key=lambda one: -one[0])
    rows = [
        (escape(class_names[row]), escape(class_names[column]), f"{count} of {int(counts[row].sum())}")
        for count, row, column in wrong[:_MOST_CONFUSED]
    ]
    columns = ("label", "answered", "test images")
    mistakes = table(columns, rows) if rows else "<p>No test image was answered wrongly.</p>"
    more = f"<p>... and {len(wrong) - len(rows)} more pairs.</p>" if len(wrong) > len(rows) else ""
    file = f"<p>Every test image's answer: {REPORT}/predictions.csv in the version's folder.</p>"
    return f"{picture.html()}{mistakes}{more}{file}"


def split(manifest: Manifest, dataset: Dataset) -> str:
    """How many images of what are on which side, and what was left out."""
    sides = manifest.data
    shown = [
        (escape(one.label), one.train, one.validation, one.test or "<b>none</b>" if sides.test else 0)
        for one in sides.classes
    ]
    shown.append(("all", sides.train, sides.validation, sides.test))
    given = [name for name in sides.given_splits if name]
    how = f"DATA itself says what is {', '.join(given)}." if given else "Split by hash of the content, class by class."
    out = [
        ("left out, as another image shows the same picture", sides.duplicates),
        ("left out, as the file cannot be used", len(dataset.rejected)),
    ]
    return (
        f"<p>{how}</p>{_untested(manifest)}{table(('class', 'train', 'validation', 'test'), shown, len(shown) - 1)}"
        f"{table(('', ''), out)}{_rejected(dataset.rejected, dataset)}"
    )


def _untested(manifest: Manifest) -> str:
    said = record.untested(manifest.data)
    return f"<p><span class=warning>not tested</span> {escape(said)}.</p>" if said else ""


def _rejected(rejected: Sequence[Rejected], dataset: Dataset) -> str:
    if not rejected:
        return ""
    rows = [
        (escape(dataset.relative(one.path)), escape(one.code), escape(one.reason)) for one in rejected[:_MOST_REJECTED]
    ]
    more = len(rejected) - len(rows)
    rest = f"<p>... and {more} more.</p>" if more else ""
    return (
        f"<details><summary>Files that cannot be used</summary>{table(('file', 'code', 'why'), rows)}{rest}</details>"
    )


def audit(manifest: Manifest, findings: str) -> str:
    """Counts by kind, and the findings with their thumbnails behind a fold."""
    found = manifest.audit.findings
    if not found:
        return "<p>Nothing suspicious was found in the data.</p>"
    rows = [
        (f"<span class={one.severity}>{one.severity}</span>", escape(one.title), f"{one.count} {escape(one.unit)}")
        for one in found
    ]
    return f"{table(('', 'found', 'count'), rows)}<details><summary>What and where</summary>{findings}</details>"


def phases(manifest: Manifest) -> str:
    """Seconds by phase."""
    ran = manifest.recipe.phases
    longest = max((phase.seconds for phase in ran), default=1.0) or 1.0
    rows: list[tuple[object, ...]] = [
        (escape(phase.name), f"{phase.seconds:.1f}", bar(phase.seconds / longest, label="")) for phase in ran
    ]
    rows.append(("all", f"{sum(phase.seconds for phase in ran):.1f}", ""))
    return table(("phase", "seconds", ""), rows, len(rows) - 1) + "<p>Writing this report is not among them.</p>"


def recipe(manifest: Manifest) -> str:
    """What it takes to train this again."""
    image = manifest.image
    rows: list[tuple[object, ...]] = [
        ("image", f"{image.side_px} px, {escape(image.resize)}, {escape(image.resample)}"),
        ("seed", manifest.recipe.seed),
        ("temperature", f"{manifest.calibration.temperature:.3f}"),
        ("unknown below", f"{manifest.unknown_threshold:.3f}"),
        *((escape(name), escape(value)) for name, value in sorted(manifest.recipe.hyperparameters.items())),
        ("created", escape(manifest.created)),
        ("data", f"SHA-256 {manifest.data.sha256[:16]}…"),
    ]
    versions = [(escape(name), escape(value)) for name, value in sorted(manifest.library_versions.items())]
    return (
        f"<pre>{escape(manifest.recipe.command)}</pre>{table(('', ''), rows)}"
        f"<h3>Versions</h3>{table(('', ''), versions)}"
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
