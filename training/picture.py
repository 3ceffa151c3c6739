"""Plots, one look for report, compare and sweep: intervals, curves and a confusion matrix, each as SVG and PNG.

Drawn by matplotlib, without pyplot: nothing global, no window. It is slow to import, so import this late.
In a page the SVG's colours become the page's own, so that one drawing suits light and dark.
"""

import io
import logging
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from training.report.document import COLOURS, SERIES

# Where no folder of its own can be written it says so at every start; it works all the same.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

_WIDTH_IN: Final = 5.6
"""Narrow, so that the letters can still be read where the page is a phone's."""

_PNG_DPI: Final = 200
_STYLE: Final[Any] = {
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": COLOURS["paper"],
    "axes.facecolor": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "grid.color": COLOURS["line"],
    "svg.fonttype": "none",
    "svg.hashsalt": "graft",
    "text.color": COLOURS["ink"],
    "text.parse_math": False,  # a class may be called $x$
    "xtick.color": COLOURS["soft"],
    "ytick.color": COLOURS["soft"],
}
_ROW_IN: Final = 0.46
_PANEL_IN: Final = 2.5
_MOST_LETTERS: Final = 56
_MOST_NUMBERED: Final = 30
_MOST_NAMED: Final = 60


@dataclass(frozen=True)
class Row:
    """A share of 0 to 1 with its interval, a note at the right, and whether it is the one that matters."""

    name: str
    share: float
    interval: Sequence[float]
    note: str = ""
    winner: bool = False


@dataclass(frozen=True)
class Line:
    """Points (x, y) under one name; `number` chooses the colour, so that two lines can share it."""

    name: str
    points: Sequence[tuple[float, float]]
    number: int
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines over a common x axis. `shares`: y is a share of 0 to 1."""

    title: str
    lines: Sequence[Line]
    shares: bool = False


@dataclass(frozen=True)
class Picture:
    """A drawn plot.

    Attributes:
        name: of its files, without the ending.
        title: what it shows, for who cannot see it.
        svg: a whole SVG file.
        png: a whole PNG file.
    """

    name: str
    title: str
    svg: str
    png: bytes

    def write(self, folder: Path) -> None:
        """Writes NAME.svg and NAME.png."""
        (folder / f"{self.name}.svg").write_text(self.svg, encoding="utf-8")
        (folder / f"{self.name}.png").write_bytes(self.png)

    def html(self) -> str:
        """The SVG as part of a page, in the page's colours."""
        drawing = self.svg[self.svg.index("<svg") :]
        box = re.search(r'viewBox="[^"]*"', drawing)
        assert box is not None  # noqa: S101 - matplotlib always writes one
        drawing = drawing[drawing.index(">") + 1 :]
        for name, value in (*COLOURS.items(), *((f"series{at}", value) for at, value in enumerate(SERIES))):
            drawing = drawing.replace(f": {value}", f": var(--{name})")
        for reference in (' id="', 'href="#', "url(#"):  # several drawings share a page
            drawing = drawing.replace(reference, f"{reference}{self.name}-")
        return f'<figure class=plot><svg {box[0]} role="img" aria-label="{escape(self.title)}">{drawing}</figure>'


def intervals(name: str, title: str, rows: Sequence[Row], across: str) -> Picture:
    """Shares with their intervals, one below the other; the winner's interval is shaded behind all of them.

    Args:
        name: of the files.
        title: above.
        rows: in the order to show; at least one.
        across: what the x axis is.
    """

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        axes.set_title(title, loc="left", fontsize=11)
        low, high = min(row.interval[0] for row in rows), max(row.interval[1] for row in rows)
        margin = 0.04 * ((high - low) or 1)
        axes.set_xlim(max(0.0, low - margin), min(1.0, high + margin))
        axes.set_ylim(len(rows) - 0.35, -0.75)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(across)
        for at, row in enumerate(rows):
            colour = SERIES[0] if row.winner else COLOURS["soft"]
            if row.winner:
                axes.axvspan(*row.interval, color=colour, alpha=0.1, linewidth=0)
            axes.plot(row.interval, [at, at], color=colour, linewidth=2.5, solid_capstyle="butt")
            axes.plot([row.share], [at], color=colour, marker="o", markersize=8, clip_on=False)
            beside = axes.get_yaxis_transform()
            weight = "bold" if row.winner else "normal"
            axes.text(0, at - 0.27, _short(row.name), transform=beside, va="bottom", weight=weight)
            axes.text(1, at - 0.27, row.note, transform=beside, va="bottom", ha="right", color=COLOURS["soft"])

    return _picture(name, title, _ROW_IN * len(rows) + 0.9, draw)


def curves(name: str, title: str, panels: Sequence[Panel], across: str, mark: float | None = None) -> Picture:
    """Lines by x, panels one below the other.

    Args:
        name: of the files.
        title: what it shows, for who cannot see it.
        panels: from top to bottom; at least one.
        across: what the x axes count.
        mark: an x to mark by a vertical line.
    """

    def draw(figure: Figure) -> None:
        several = figure.subplots(len(panels), sharex=True, squeeze=False)
        for axes, panel in zip(several[:, 0], panels, strict=True):
            axes.set_title(panel.title, loc="left", fontsize=11)
            axes.grid(axis="y")
            if mark is not None:
                axes.axvline(mark, color=COLOURS["soft"], linewidth=1, linestyle=":")
            for line in panel.lines:
                x, y = zip(*line.points, strict=True)
                axes.plot(
                    x, y, label=_short(line.name), color=SERIES[line.number % len(SERIES)], linewidth=2,
                    linestyle="--" if line.dashed else "-", marker="o" if len(x) < 30 else None, markersize=3.5,
                )  # fmt: skip
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if panel.shares:
                axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            else:
                axes.set_ylim(bottom=0)
            axes.legend(frameon=False, fontsize=9)
        several[-1, 0].set_xlabel(across)

    return _picture(name, title, _PANEL_IN * len(panels), draw)


def confusion(name: str, counts: NDArray[Any], class_names: Sequence[str]) -> Picture:
    """How often each class was answered with each.

    Args:
        name: of the files.
        counts: [C,C], row is the label, column the answer.
        class_names: by number.
    """
    many = len(class_names)
    totals = counts.sum(axis=1)

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        axes.set(xlim=(0, many), ylim=(many, 0), aspect="equal", xlabel="answer", ylabel="label")
        axes.spines[["top", "right"]].set_visible(True)
        # Only what is there is drawn: the matrix of a thousand classes is nearly empty.
        for row, column in zip(*counts.nonzero(), strict=True):
            share = counts[row, column] / totals[row]
            colour = SERIES[0] if row == column else SERIES[4]
            axes.add_patch(Rectangle((column, row), 1, 1, color=colour, alpha=0.15 + 0.8 * share, linewidth=0))
            if many <= _MOST_NUMBERED:
                ink = COLOURS["paper" if share > 0.5 else "ink"]
                size = 11 if many <= 12 else 6
                axes.text(
                    column + 0.5, row + 0.5, str(counts[row, column]), ha="center", va="center", color=ink, size=size
                )
        places = [number + 0.5 for number in range(many)] if many <= _MOST_NAMED else []
        names = [_short(one, 24) for one in class_names] if places else []
        size = 10 if many <= 12 else 7 if many <= _MOST_NUMBERED else 4
        axes.set_xticks(places, names, rotation=90 if many > 4 else 0, fontsize=size)
        axes.set_yticks(places, names, fontsize=size)
        axes.tick_params(length=0)

    return _picture(name, "confusion matrix: answers by label", 4.2 if many <= 12 else _WIDTH_IN, draw)


def _picture(name: str, title: str, height_in: float, draw: Callable[[Figure], None]) -> Picture:
    svg, png = io.StringIO(), io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A PNG shows boxes for letters that its font has not; the SVG shows them in the viewer's font.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure((_WIDTH_IN, height_in), layout="constrained")
        draw(figure)
        figure.savefig(svg, format="svg", metadata=nothing)
        figure.savefig(png, format="png", dpi=_PNG_DPI)
    return Picture(name, title, svg.getvalue(), png.getvalue())


def _short(name: str, letters: int = _MOST_LETTERS) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"
