"""The training report: one HTML page that needs nothing else, verdict first, and a CSV of every test image's answer."""

import csv
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from protos.manifest_pb2 import Evaluation, Manifest
from service.version import REPORT
from training.dataset import Dataset, Rejected
from training.evaluation import Prediction
from training.task import Epoch

PREDICTIONS: Final = f"{REPORT}/predictions.csv"

_MOST_REJECTED: Final = 200
_MOST_CLASSES_IN_MATRIX: Final = 40


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
    comparison: str | None = None,
) -> None:
    """Writes report/index.html and report/predictions.csv into a version directory.

    Args:
        folder: the version directory.
        manifest: complete but for the hashes.
        dataset: for its rejected files.
        epochs: the curve of gradient training; empty where there is none.
        predictions: of the test images.
        confusion: counts [C,C], row is the label.
        audit: HTML that says what the audit found, from `audit.page.section`.
        mistakes: HTML that shows wrong answers, from `gallery.section`.
        comparison: the sentence about the version that was published before; None where none was asked for.
    """
    (folder / REPORT).mkdir(parents=True)
    page = _page(manifest, dataset, epochs, confusion, audit=audit, mistakes=mistakes, comparison=comparison)
    (folder / REPORT / "index.html").write_text(page, encoding="utf-8")
    with (folder / PREDICTIONS).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label", "predicted", "score", "sha256", "pixels_sha256"))
        for one in predictions:
            path = _relative(one.image.path, dataset.root)
            writer.writerow(
                (path, one.image.label, one.predicted, f"{one.score:.6f}", one.image.sha256, one.pixels_sha256)
            )


def document(title: str, parts: Sequence[str]) -> str:
    """A whole page that needs nothing else; `title` is escaped already."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><main>{''.join(parts)}</main></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An HTML table; the cells are escaped already."""
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _page(
    manifest: Manifest,
    dataset: Dataset,
    epochs: Sequence[Epoch],
    confusion: NDArray[Any],
    *,
    audit: str,
    mistakes: str,
    comparison: str | None,
) -> str:
    title = f"{escape(manifest.name)} version {manifest.version}"
    parts = [
        f"<h1>{title}</h1>",
        _verdict(manifest),
        f"<p>This version is {escape(comparison)}.</p>" if comparison else "",
        "<h2>By class</h2>",
        _classes(manifest.metrics.test),
        "<h2>Confusion</h2>",
        _matrix(confusion, manifest.class_names),
        *(["<h2>Most confident mistakes</h2>", mistakes] if mistakes else []),
        *(["<h2>Training</h2>", _curves(epochs)] if len(epochs) > 1 else []),
        "<h2>What was tried</h2>" if manifest.recipe.evidence else "",
        _evidence(manifest),
        "<h2>Data</h2>",
        _data(manifest, dataset),
        *(["<h2>Audit of the data</h2>", audit] if audit else []),
        "<h2>Time</h2>",
        _phases(manifest),
        "<h2>Recipe</h2>",
        _recipe(manifest),
    ]
    return document(title, parts)


def _verdict(manifest: Manifest) -> str:
    test, recipe = manifest.metrics.test, manifest.recipe
    network = f"{escape(recipe.strategy)} on {escape(recipe.backbone)}, weights {escape(recipe.weights)}"
    if not test.images:
        return f"<p class=verdict>Not tested: there were no test images.</p><p>{network}</p>"
    low, high = test.accuracy_interval
    wrong = round(test.images * (1 - test.accuracy))
    return (
        f"<p class=verdict><b>{test.accuracy:.1%}</b> of the test images are classified correctly.</p>"
        f"<p>95 % interval {low:.1%} to {high:.1%}: {wrong} of {test.images} wrong, none of them seen in training, "
        f"answered by the exported version itself on {escape(test.engine)}. On held-out training data it was "
        f"{manifest.metrics.validation.accuracy:.1%} of {manifest.metrics.validation.images}.</p><p>{network}; "
        f"{recipe.trained_parameters:,} of {recipe.total_parameters:,} parameters trained.</p>"
    )


def _classes(test: Evaluation) -> str:
    rows = [
        (escape(one.label), one.images, bar(one.precision), bar(one.recall))
        for one in sorted(test.classes, key=lambda one: one.recall)
    ]
    return table(("class", "test images", "precision", "recall"), rows)


def _matrix(counts: NDArray[Any], names: Sequence[str]) -> str:
    if len(names) > _MOST_CLASSES_IN_MATRIX:
        return f"<p>{len(names)} classes are too many to draw; predictions.csv has every answer.</p>"
    head = "".join(f"<th class=up><span>{escape(name)}</span></th>" for name in names)
    body = []
    for row, name in enumerate(names):
        total = max(1, int(counts[row].sum()))
        cells = []
        for column, count in enumerate(counts[row]):
            colour = "40,120,90" if row == column else "190,60,40"
            shade = f' style="background:rgba({colour},{0.15 + 0.75 * count / total:.2f})"' if count else ""
            cells.append(f"<td class=cell{shade}>{count or ''}</td>")
        body.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    corner = "<th>label \\ answer</th>"
    return f"<table class=matrix><thead><tr>{corner}{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _curves(epochs: Sequence[Epoch]) -> str:
    best = min(epochs, key=lambda epoch: epoch.validation_loss)
    rows = [
        (
            f"<b>{one.number}</b>" if one is best else one.number,
            "" if one.train_loss is None else f"{one.train_loss:.4f}",
            f"{one.validation_loss:.4f}",
            f"{one.validation_accuracy:.4f}",
        )
        for one in epochs
    ]
    train = [(one.number, one.train_loss) for one in epochs if one.train_loss is not None]
    validation = [(one.number, one.validation_loss) for one in epochs]
    return (
        f"<p>Epoch 0 is before training; epoch {best.number} was kept.</p>"
        f"{_plot(train, validation)}<details><summary>Numbers</summary>"
        f"{table(('epoch', 'loss', 'validation loss', 'validation accuracy'), rows)}</details>"
    )


def _plot(train: Sequence[tuple[int, float]], validation: Sequence[tuple[int, float]]) -> str:
    """Both losses by epoch, as SVG."""
    width, height, margin = 640, 240, 36
    last = max(1, validation[-1][0])
    top = max(loss for _, loss in (*train, *validation)) or 1.0

    def line(points: Sequence[tuple[int, float]], name: str) -> str:
        across, up = (width - 2 * margin) / last, (height - 2 * margin) / top
        places = " ".join(f"{margin + across * at:.1f},{height - margin - up * loss:.1f}" for at, loss in points)
        return f'<polyline class={name} points="{places}"/>'

    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="loss by epoch">'
        f'<path class=axis d="M{margin} {margin}V{height - margin}H{width - margin}"/>'
        f'<text x="{margin}" y="{margin - 8}">{top:.3g}</text><text x="{margin - 14}" y="{height - margin}">0</text>'
        f'<text x="{width - margin}" y="{height - 12}" text-anchor="end">epoch {last}</text>'
        f"{line(train, 'train')}{line(validation, 'validation')}"
        f'<text class=train x="{width - margin}" y="20" text-anchor="end">loss in training</text>'
        f'<text class=validation x="{width - margin}" y="36" text-anchor="end">loss in validation</text></svg>'
    )


def _evidence(manifest: Manifest) -> str:
    if not manifest.recipe.evidence:
        return ""
    rows = [(escape(one.candidate), f"{one.validation_accuracy:.4f}") for one in manifest.recipe.evidence]
    recorded = manifest.recipe.hyperparameters
    said = [recorded[name] for name in ("why", "case", "fine_tuning") if name in recorded]
    why = "".join(f"<p>{escape(sentence)}</p>" for sentence in said)
    return f"{why}<p>Best first, by log-loss on held-out images.</p>" + table(("candidate", "held-out accuracy"), rows)


def _data(manifest: Manifest, dataset: Dataset) -> str:
    sides = manifest.data
    sizes = table(
        ("", "images"),
        [
            ("train", sides.train),
            ("validation", sides.validation),
            ("test", sides.test),
            ("left out, as another image shows the same picture", sides.duplicates),
            ("left out, as the file cannot be used", len(dataset.rejected)),
        ],
    )
    return sizes + _rejected(dataset.rejected, dataset.root)


def _rejected(rejected: Sequence[Rejected], root: Path) -> str:
    if not rejected:
        return ""
    rows = [
        (escape(_relative(one.path, root)), escape(one.code), escape(one.reason)) for one in rejected[:_MOST_REJECTED]
    ]
    more = len(rejected) - len(rows)
    rest = f"<p>... and {more} more.</p>" if more else ""
    return (
        f"<details><summary>Files that cannot be used</summary>{table(('file', 'code', 'why'), rows)}{rest}</details>"
    )


def _phases(manifest: Manifest) -> str:
    phases = manifest.recipe.phases
    longest = max((phase.seconds for phase in phases), default=1.0) or 1.0
    rows: list[tuple[object, ...]] = [
        (escape(phase.name), f"{phase.seconds:.1f}", bar(phase.seconds / longest, label="")) for phase in phases
    ]
    rows.append(("<b>all</b>", f"<b>{sum(phase.seconds for phase in phases):.1f}</b>", ""))
    return table(("phase", "seconds", ""), rows)


def _recipe(manifest: Manifest) -> str:
    image = manifest.image
    rows: list[tuple[object, ...]] = [
        ("image", f"{image.side_px} px, {escape(image.resize)}, {escape(image.resample)}"),
        ("seed", manifest.recipe.seed),
        ("temperature", f"{manifest.calibration.temperature:.3f}"),
        ("unknown below", f"{manifest.unknown_threshold:.3f}"),
        *((escape(name), escape(value)) for name, value in sorted(manifest.recipe.hyperparameters.items())),
        *((escape(name), escape(value)) for name, value in sorted(manifest.library_versions.items())),
        ("created", escape(manifest.created)),
    ]
    return f"<pre>{escape(manifest.recipe.command)}</pre>{table(('', ''), rows)}"


def bar(share: float, label: str | None = None) -> str:
    """A bar of a share of 1, with its number or another label."""
    text = f"{share:.3f}" if label is None else label
    return f'<span class=bar><i style="width:{100 * share:.1f}%"></i></span> {text}'


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1d2329;--soft:#67727d;--line:#d9dee3;--paper:#fff;--green:#28785a;--blue:#2f6fb0}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#98a3ad;--line:#353d45;--paper:#15191d;--green:#4fb38c;--blue:#6aa9e6}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:820px;margin:3rem auto;padding:0 1.25rem}
h1{font-size:1.4rem;margin:0;color:var(--soft);font-weight:600}h2{margin:2.5rem 0 .6rem;font-size:1.15rem}
.verdict{font-size:1.6rem;margin:.6rem 0}.verdict b{color:var(--green);font-size:2.6rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.3rem .9rem .3rem 0;text-align:left}
th{font-weight:600;color:var(--soft)}tbody tr{border-top:1px solid var(--line)}
.bar{display:inline-block;width:110px;height:.55rem;background:var(--line);border-radius:4px;overflow:hidden}
.bar i{display:block;height:100%;background:var(--green)}
.matrix td.cell{width:2.6rem;height:2.2rem;padding:0;text-align:center;border:1px solid var(--line)}
.matrix th.up{padding:.2rem;vertical-align:bottom}.matrix th.up span{writing-mode:vertical-rl;transform:rotate(180deg)}
pre{background:rgba(127,127,127,.12);padding:.8rem 1rem;border-radius:6px;white-space:pre-wrap;overflow-wrap:anywhere}
svg{width:100%;max-width:640px}svg text{font-size:12px;fill:var(--soft)}.axis{fill:none;stroke:var(--line)}
polyline{fill:none;stroke-width:2.5}polyline.train{stroke:var(--blue)}polyline.validation{stroke:var(--green)}
text.train{fill:var(--blue)}text.validation{fill:var(--green)}
a{color:var(--blue)}
.gallery{display:flex;flex-wrap:wrap;gap:1rem;margin:.8rem 0}
.example{border-top:1px solid var(--line);padding-top:.5rem;font-size:.8rem;line-height:1.35;max-width:100%}
.example .files{display:flex;flex-wrap:wrap;gap:.5rem}.example figure{margin:0;width:112px}
.example figcaption{overflow-wrap:anywhere;color:var(--soft)}
.example img{display:block;border-radius:4px;margin-bottom:.2rem}
.error,.warning,.note{font-size:.75rem;font-weight:600;padding:.1rem .5rem;border-radius:1rem;color:var(--paper)}
.error{background:#b8432c}.warning{background:#b07d1c}.note{background:var(--soft)}
details{margin:.8rem 0}summary{cursor:pointer;color:var(--soft)}
"""
