"""The pages of `compare` and of `sweep`: the best first in words, the picture, the table, and the exact command."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from training.picture import Line, Panel, Picture, Row, curves, intervals
from training.report.document import Section, bounds, page, table
from training.settings import Settings

if TYPE_CHECKING:  # they import this
    from training.compare import Compared
    from training.sweep import Depth


def write_compare(out: Path, settings: Settings, compared: "Sequence[Compared]") -> None:
    """Writes compare.html, compare.svg/.png and, where there is gradient training, compare-curves.svg/.png.

    Args:
        out: an existing folder.
        settings: what they have in common.
        compared: all on the same test images.
    """
    best = max(compared, key=lambda one: one.test_accuracy)
    first = [one for one in compared if one.test_accuracy == best.test_accuracy]
    rows = [
        Row(
            _name(one),
            one.test_accuracy,
            one.test_interval,
            f"{one.test_accuracy:.1%}, {one.seconds:.0f} s",
            winner=one is best,
        )
        for one in compared
    ]
    images = best.test_images
    bars = intervals("compare", f"Accuracy on the same {images} test images, 95 % intervals", rows, "test accuracy")
    curve = _curves(compared)
    cells = [
        (
            escape(_name(one)),
            f"{one.test_accuracy:.4f} <small>{bounds(one.test_interval)}</small>",
            f"{one.validation_accuracy:.4f} <small>of {one.validation_images}</small>",
            f"{one.seconds:.1f}",
            f"{one.trained_parameters:,}",
        )
        for one in compared
    ]
    columns = ("strategy", "test accuracy, 95 % interval", "held-out accuracy", "seconds", "parameters trained")
    low, high = best.test_interval
    level = [one for one in compared if one not in first and one.test_interval[1] >= best.test_accuracy]
    others = f"; {', '.join(_name(one) for one in level)} cannot be told from that on so few images" if level else ""
    sections = [
        Section("Side by side", bars.html() + table(columns, cells, compared.index(best))),
        Section("Curves", _explained(compared, curve)),
    ]
    _write(
        out / "compare.html",
        settings,
        "strategies compared",
        verdict=f"<b>{escape(' and '.join(map(_name, first)))}</b> answered the most of the {images} test images "
        f"rightly: {best.test_accuracy:.1%}, 95 % interval {low:.1%} to {high:.1%}{escape(others)}.",
        sections=sections,
        pictures=[bars, *([curve] if curve else [])],
    )


def write_sweep(out: Path, settings: Settings, swept: "Sequence[Depth]") -> None:
    """Writes sweep.html, sweep.svg and sweep.png.

    Args:
        out: an existing folder.
        settings: what was swept.
        swept: first to last.
    """
    best = max(swept, key=lambda one: one.accuracy)
    rows = [
        Row(one.layer, one.accuracy, one.interval, f"{one.accuracy:.1%}, {one.width} features", winner=one is best)
        for one in swept
    ]
    title = f"A linear head with {settings.backbone} frozen and cut here, 95 % intervals"
    bars = intervals("sweep", title, rows, "accuracy out of fold")
    cells = [
        (
            escape(one.layer),
            f"{one.accuracy:.4f} <small>{bounds(one.interval)}</small>",
            f"{one.logme:.3f}",
            one.width,
        )
        for one in swept
    ]
    columns = ("cut after", "accuracy, 95 % interval", "LogME", "features")
    found = Section(
        "From the first boundary to the last features", bars.html() + table(columns, cells, swept.index(best))
    )
    _write(
        out / "sweep.html",
        settings,
        "accuracy against freeze depth",
        verdict=f"Frozen up to <b>{escape(best.layer)}</b> a linear head is right most often: {best.accuracy:.1%} of "
        f"{best.images} images, out of fold.",
        sections=[found],
        pictures=[bars],
    )


def _write(
    file: Path,
    settings: Settings,
    title: str,
    *,
    verdict: str,
    sections: Sequence[Section],
    pictures: Sequence[Picture],
) -> None:
    for picture in pictures:
        picture.write(file.parent)
    title = escape(f"{settings.data.name}: {title}")
    head = f"<h1>{title}</h1><p class=verdict>{verdict}</p>"
    command = Section("Command", f"<pre>{escape(settings.command)}</pre>")
    file.write_text(page(title, [head], [*sections, command]), encoding="utf-8")


def _curves(compared: "Sequence[Compared]") -> Picture | None:
    """Accuracy and loss by epoch; a strategy without epochs is a level line. None where none has any."""
    last = max((one.curve[-1].number for one in compared if one.curve), default=0)
    if not last:
        return None
    accuracies, losses = [], []
    for number, one in enumerate(compared):
        if not one.curve:
            level = [(0, one.validation_accuracy), (last, one.validation_accuracy)]
            accuracies.append(Line(_name(one), level, number, dashed=True))
            continue
        accuracies.append(Line(_name(one), [(at.number, at.validation_accuracy) for at in one.curve], number))
        trained = [(at.number, at.train_loss) for at in one.curve if at.train_loss is not None]
        losses.append(Line(f"{_name(one)}, training", trained, number, dashed=True))
        validated = [(at.number, at.validation_loss) for at in one.curve]
        losses.append(Line(f"{_name(one)}, validation", validated, number))
    panels = [Panel("Accuracy on held-out images", accuracies, shares=True), Panel("Loss", losses)]
    return curves("compare-curves", "accuracy and loss by epoch", panels, "epoch")


def _explained(compared: "Sequence[Compared]", picture: Picture | None) -> str:
    if picture is None:
        return ""
    level = [_name(one) for one in compared if not one.curve]
    said = f"<p>Without epochs, and so a level line: {escape(', '.join(level))}.</p>" if level else ""
    return said + picture.html()


def _name(one: "Compared") -> str:
    return one.strategy if one.chosen == one.strategy else f"{one.strategy}: {one.chosen}"
