"""The audit as HTML with thumbnails: a page of its own, or a section of the training report.

The pictures are small JPEGs inside the page, and only so many of them whatever was found.
"""

import base64
import io
import re
from collections import Counter
from html import escape
from pathlib import Path
from typing import Final

from PIL.Image import Resampling

from service.errors import GraftError
from service.image import ImageSpec, decode_picture
from training.audit.findings import Audit, Example, Finding
from training.dataset import Image, printable
from training.report import document

_THUMBNAIL_PX: Final = 112
_MOST_FILES: Final = 4
_MOST_PICTURES: Final = 400
"""Thumbnails in a page; about 4 KB each."""


def write(audit: Audit, path: Path, command: str) -> None:
    """Writes a page that needs nothing else."""
    title = f"Audit of {escape(printable(audit.dataset.root.name))}"
    recipe = f"<h2>Command</h2><pre>{escape(printable(command))}</pre>"
    path.write_text(
        document.page(title, [f"<h1>{title}</h1>", _verdict(audit), section(audit, examples=24, level=2), recipe]),
        encoding="utf-8",
    )


def section(audit: Audit, *, examples: int = 8, level: int = 3) -> str:
    """The findings as HTML.

    Args:
        audit: what was found.
        examples: at most so many of each finding.
        level: of the headings.
    """
    thumbnails = _Thumbnails(audit)
    parts = [f"<p>{escape(reason)}</p>" for reason in audit.left_out]
    parts += [_finding(finding, thumbnails, examples, level) for finding in audit.findings]
    return "".join(parts)


class _Thumbnails:
    """Small pictures of a dataset's files, as data URIs, until there are enough of them."""

    def __init__(self, audit: Audit) -> None:
        self._dataset = audit.dataset
        asked = {file.path for finding in audit.findings for one in finding.examples for file in one.files}
        names = ((audit.dataset.relative(image.path), image) for image in audit.dataset.images) if asked else ()
        self._images = {name: image for name, image in names if name in asked}
        self._left = _MOST_PICTURES

    def __call__(self, path: str) -> str:
        """An <img>, or nothing where the file is no picture or there are enough."""
        image = self._images.get(path)
        if image is None or not self._left:
            return ""
        self._left -= 1
        try:
            encoded, width, height = _jpeg(image)
        except (OSError, GraftError):  # gone since it was indexed
            return ""
        uri = base64.b64encode(encoded).decode()
        return f'<img src="data:image/jpeg;base64,{uri}" width={width} height={height} alt="{escape(path)}">'


def _jpeg(image: Image) -> tuple[bytes, int, int]:
    """The whole picture, upright and in proportion, with its long side at 112 px."""
    square = decode_picture(image.path.read_bytes(), ImageSpec(_THUMBNAIL_PX))
    longest = max(image.width_px, image.height_px, 1)
    width, height = (max(1, round(side * _THUMBNAIL_PX / longest)) for side in (image.width_px, image.height_px))
    stream = io.BytesIO()
    square.resize((width, height), Resampling.BILINEAR).save(stream, "JPEG", quality=75)
    return stream.getvalue(), width, height


def _verdict(audit: Audit) -> str:
    dataset = audit.dataset
    by_severity = Counter(finding.severity for finding in audit.findings)
    found = [f"{by_severity[one]} {one}{'s' * (by_severity[one] != 1)}" for one in ("error", "warning", "note")]
    sizes = Counter(image.label for image in dataset.images)
    most = max(sizes.values())
    rows = [(escape(name), document.bar(sizes[name] / most, str(sizes[name]))) for name in dataset.class_names]
    by_class = document.table(("class", "images"), rows)
    return (
        f"<p class=verdict>{len(dataset.images)} images in {len(dataset.class_names)} classes: {', '.join(found)}.</p>"
        f"{_summary(audit)}<details><summary>Images by class</summary>{by_class}</details>"
    )


def _summary(audit: Audit) -> str:
    if not audit.findings:
        return "<p>Nothing suspicious was found.</p>"
    rows = [(_badge(one), f'<a href="#{one.kind}">{escape(one.title)}</a>', one.amount) for one in audit.findings]
    return document.table(("", "found", "count"), rows)


def _finding(finding: Finding, thumbnails: _Thumbnails, examples: int, level: int) -> str:
    shown = finding.examples[:examples]
    heading = f"{_badge(finding)} {escape(finding.title.capitalize())}: {finding.amount}"
    if any(file.label for example in shown for file in example.files):
        body = f"<div class=gallery>{''.join(_example(example, thumbnails) for example in shown)}</div>"
    else:
        body = document.table(("", ""), [(_names(example), escape(example.note)) for example in shown])
    more = len(finding.examples) - len(shown)
    rest = f"<p>... and {more} more; <code>audit --json</code> lists them all.</p>" if more else ""
    return f'<h{level} id="{finding.kind}">{heading}</h{level}><p>{_prose(finding.advice)}</p>{body}{rest}'


def _example(example: Example, thumbnails: _Thumbnails) -> str:
    figures = [
        f"<figure>{thumbnails(file.path)}<figcaption>{escape(file.path)}</figcaption></figure>"
        for file in example.files[:_MOST_FILES]
    ]
    return f"<div class=example>{escape(example.note)}<div class=files>{''.join(figures)}</div></div>"


def _names(example: Example) -> str:
    return "<br>".join(escape(file.path) for file in example.files[:_MOST_FILES])


def _prose(text: str) -> str:
    """Escaped, with what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _badge(finding: Finding) -> str:
    return f"<span class={finding.severity}>{finding.severity}</span>"
