"""Pictures of a comparison as SVG that needs nothing else: bars with intervals, and curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_COLOURS: Final = ("#28785a", "#2f6fb0", "#b5651d", "#8a4fa3", "#b03a48", "#5c6b73", "#9a8700")
_WIDTH: Final = 760
_LEFT: Final = 190
_RIGHT: Final = 190
_ROW: Final = 30
_CURVES: Final = 240
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#1d2329}.soft{fill:#67727d;font-size:12px}"
    ".axis{stroke:#d9dee3;fill:none}.interval{stroke:#1d2329;stroke-width:1.5}polyline{fill:none;stroke-width:2.5}"
)


@dataclass(frozen=True)
class Bar:
    """One row: a share of 0 to 1 with its interval, a note beside it, and a curve of shares (may be empty)."""

    name: str
    share: float
    low: float
    high: float
    note: str
    curve: Sequence[tuple[float, float]] = ()


def draw(title: str, bars: Sequence[Bar], curve_title: str, across: str) -> str:
    """Bars from top to bottom, and below them the curves of those that have one.

    Args:
        title: above the bars.
        bars: in the order to show.
        curve_title: above the curves.
        across: what their x axis counts.
    """
    curves = [(number, bar) for number, bar in enumerate(bars) if len(bar.curve) > 1]
    top = 44
    height = top + _ROW * len(bars) + (_CURVES + 70 if curves else 0) + 16
    parts = [f'<text x="16" y="26" font-weight="600">{escape(title)}</text>']
    parts += [_bar(bar, top + _ROW * row, _colour(row)) for row, bar in enumerate(bars)]
    if curves:
        parts.append(_panel(curves, top + _ROW * len(bars) + 50, curve_title, across))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _bar(bar: Bar, y: int, colour: str) -> str:
    scale = _WIDTH - _LEFT - _RIGHT
    middle = y + 9
    low, high = (_LEFT + scale * share for share in (bar.low, bar.high))
    return (
        f'<text x="{_LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(bar.name)}</text>'
        f'<rect x="{_LEFT}" y="{y}" width="{scale}" height="18" fill="#eef1f3"/>'
        f'<rect x="{_LEFT}" y="{y}" width="{scale * bar.share:.1f}" height="18" fill="{colour}"/>'
        f'<path class="interval" d="M{low:.1f} {middle}H{high:.1f}"/>'
        f'<path class="interval" d="M{low:.1f} {y + 5}v8M{high:.1f} {y + 5}v8"/>'
        f'<text class="soft" x="{_WIDTH - _RIGHT + 10}" y="{y + 14}">{escape(bar.note)}</text>'
    )


def _panel(curves: Sequence[tuple[int, Bar]], top: int, title: str, across: str) -> str:
    points = [point for _, bar in curves for point in bar.curve]
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    floor = min(y for _, y in points)
    width, bottom = _WIDTH - _LEFT - _RIGHT, top + _CURVES

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + width * (x - first) / ((last - first) or 1), bottom - _CURVES * (y - floor) / ((1 - floor) or 1)

    lines = []
    for row, (number, bar) in enumerate(curves):
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in bar.curve))
        lines.append(
            f'<polyline points="{places}" stroke="{_colour(number)}"/><text x="{_WIDTH - _RIGHT + 10}" '
            f'y="{top + 14 + 18 * row}" style="fill:{_colour(number)}">{escape(bar.name)}</text>'
        )
    return (
        f'<text x="16" y="{top - 16}" font-weight="600">{escape(title)}</text>'
        f'<path class="axis" d="M{_LEFT} {top}V{bottom}H{_LEFT + width}"/>'
        f'<text class="soft" x="{_LEFT - 8}" y="{top + 5}" text-anchor="end">1</text>'
        f'<text class="soft" x="{_LEFT - 8}" y="{bottom}" text-anchor="end">{floor:.2f}</text>'
        f'<text class="soft" x="{_LEFT}" y="{bottom + 16}">{first:g}</text>'
        f'<text class="soft" x="{_LEFT + width}" y="{bottom + 16}" text-anchor="end">{last:g} {escape(across)}</text>'
        f"{''.join(lines)}"
    )


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
