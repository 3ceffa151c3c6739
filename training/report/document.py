"""What every page looks like: style, sections, tables, bars. Pictures come from training/picture.py."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

COLOURS: Final = {"ink": "#1d2329", "soft": "#67727d", "line": "#d9dee3", "paper": "#ffffff"}
"""By the name that they have in the style sheet, in the light."""

SERIES: Final = ("#28785a", "#2f6fb0", "#b5651d", "#8a4fa3", "#b03a48", "#5c6b73", "#9a8700")
"""Of lines and bars: --series0 and so on. The first is what matters, the fifth what is wrong."""

_DARK: Final = {"ink": "#e6e9ec", "soft": "#98a3ad", "line": "#353d45", "paper": "#15191d"}
_DARK_SERIES: Final = ("#4fb38c", "#6aa9e6", "#e09a55", "#c08ad8", "#e5747f", "#9aa8b1", "#cfbb3a")


@dataclass(frozen=True)
class Section:
    """A part of a page; one without content is left out."""

    title: str
    html: str


def page(title: str, parts: Sequence[str], sections: Iterable[Section] = ()) -> str:
    """A whole page that needs nothing else; `title` is escaped already."""
    body = "".join(f"<h2>{escape(one.title)}</h2>{one.html}" for one in sections if one.html)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_style()}</style><main>{''.join(parts)}{body}</main></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]], strong: int | None = None) -> str:
    """An HTML table; the cells are escaped already.

    Args:
        head: titles of the columns; none of them where all are empty.
        rows: cells.
        strong: the number of a row to stand out.
    """
    titles = "".join(f"<th>{title}</th>" for title in head)
    top = f"<thead><tr>{titles}</tr></thead>" if any(head) else ""
    lines = [
        f"<tr{' class=strong' if at == strong else ''}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for at, row in enumerate(rows)
    ]
    return f"<div class=scroll><table>{top}<tbody>{''.join(lines)}</tbody></table></div>"


def bar(share: float, label: str | None = None) -> str:
    """A bar of a share of 1, with its number or another label."""
    text = f"{share:.3f}" if label is None else label
    return f'<span class=bar><i style="width:{100 * share:.1f}%"></i></span> {text}'


def interval(share: float, ends: Sequence[float]) -> str:
    """A share of 1 in numbers and as a point on a line, with its interval [low, high]; a dash where there is none."""
    if len(ends) != 2:
        return "&ndash;"
    low, high = ends
    return (
        f'<span class=interval><i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
        f'<b style="left:{100 * share:.1f}%"></b></span> <span class=number>{share:.1%}</span> '
        f"<small>{100 * low:.1f}&ndash;{100 * high:.1f}</small>"
    )


def bounds(ends: Sequence[float]) -> str:
    """An interval [low, high] in numbers."""
    return "&ndash;".join(f"{end:.4f}" for end in ends)


def _style() -> str:
    light = {**COLOURS, **{f"series{at}": value for at, value in enumerate(SERIES)}}
    dark = {**_DARK, **{f"series{at}": value for at, value in enumerate(_DARK_SERIES)}}
    bright, dim = (";".join(f"--{name}:{value}" for name, value in one.items()) for one in (light, dark))
    return f":root{{color-scheme:light dark;{bright}}}@media(prefers-color-scheme:dark){{:root{{{dim}}}}}{_STYLE}"


_STYLE: Final = """
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif;
  -webkit-text-size-adjust:100%}
main{max-width:820px;margin:3rem auto;padding:0 1.25rem}
h1{font-size:1.1rem;margin:0;color:var(--soft);font-weight:600}
h2{margin:2.8rem 0 .6rem;font-size:1.2rem}h3{margin:1.6rem 0 .3rem;font-size:1rem}
.verdict{font-size:1.35rem;line-height:1.4;margin:.4rem 0 .8rem}
.verdict b{color:var(--series0);font-size:2.8rem;line-height:1.1;display:block;letter-spacing:-.02em}
.next{border-left:4px solid var(--series0);padding:.1rem 0 .1rem .9rem;margin:1.1rem 0}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:.6rem 1.4rem;margin:1.6rem 0 0;
  padding:0}
.facts div{border-top:1px solid var(--line);padding-top:.4rem}
.facts dt{color:var(--soft);font-size:.8rem}.facts dd{margin:0}
.scroll{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.35rem 1rem .35rem 0;text-align:left}
th{font-weight:600;color:var(--soft);font-size:.85rem}tbody tr+tr{border-top:1px solid var(--line)}
td small{color:var(--soft);white-space:nowrap}.classes td>small{display:block}tr.strong td{font-weight:600}
tr.strong small{font-weight:400}
.bar,.interval{display:inline-block;width:110px;height:.55rem;background:var(--line);border-radius:4px;
  overflow:hidden}
.bar i{display:block;height:100%;background:var(--series0)}
.interval{position:relative;overflow:visible;height:.3rem;width:90px;vertical-align:middle;margin-right:.4rem}
.interval i{position:absolute;height:100%;background:var(--series0);opacity:.45}
.interval b{position:absolute;top:-.15rem;width:.6rem;height:.6rem;margin-left:-.3rem;border-radius:50%;
  background:var(--series0)}
.number{display:inline-block;min-width:3.6rem}
pre{background:rgba(127,127,127,.12);padding:.8rem 1rem;border-radius:6px;white-space:pre-wrap;overflow-wrap:anywhere}
code{overflow-wrap:anywhere}.plot{margin:1rem 0;max-width:600px}.plot svg{display:block;width:100%}
.plot text{font-family:system-ui,sans-serif!important}a{color:var(--series1)}
.gallery{display:flex;flex-wrap:wrap;gap:1rem;margin:.8rem 0}
.example{border-top:1px solid var(--line);padding-top:.5rem;font-size:.8rem;line-height:1.35;max-width:100%}
.example .files{display:flex;flex-wrap:wrap;gap:.5rem}.example figure{margin:0;width:112px}
.example figcaption{overflow-wrap:anywhere;color:var(--soft)}
.example img{display:block;border-radius:4px;margin-bottom:.2rem}
.error,.warning,.note,.winner{font-size:.75rem;font-weight:600;padding:.1rem .5rem;border-radius:1rem;
  color:var(--paper);white-space:nowrap}
.error{background:#b8432c}.warning{background:#b07d1c}.note{background:var(--soft)}
.winner{background:var(--series0)}details{margin:.8rem 0}summary{cursor:pointer;color:var(--soft)}
@media(max-width:520px){main{margin:1.2rem auto;padding:0 1rem}.verdict{font-size:1.15rem}table{font-size:.88rem}
  th,td{padding-right:.6rem}.classes .interval{display:none}}
"""
