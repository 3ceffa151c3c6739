"""Which images show the same picture: the same bytes, or the same scene saved, scaled or toned again.

Two steps. Candidates are images whose 64-bit hashes differ in at most three bits; of two such hashes, one of the four
16-bit bands must be equal, so only images that share a band are compared. A candidate counts when the edges in the
grey thumbnails agree too, because hashes of flat or mostly white pictures collide by chance.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.dataset import THUMBNAIL_SIDE, Image

MAX_DISTANCE: Final = 3
"""Bits in which the hashes of near-identical images may differ; 4 bands find every pair up to here."""

MIN_LIKENESS: Final = 0.75
"""How well the edges of two thumbnails must agree; 1 is the same edges, 0 is chance.

Measured on all pairs within MAX_DISTANCE: the 24 near-identical pairs of the four-classes photos, looked at one by one,
have 0.78-1.00 (lowest: a copy with more contrast, then one with a sticker on it; the other 22 have 0.98 or more), and
423 re-encoded or scaled copies of generated documents 0.96-1.00. Different generated documents have 0.31-0.62.
Plain correlation or difference of the grey values cannot tell them apart: two different e-mails with the same black
scanner border correlate at 0.96, the two photos of the horse at 0.92.
"""

# Grey levels at which an edge counts fully, so that the border of a scan does not outweigh the text inside.
_EDGE: Final = 12
# Each image is compared with so many neighbours in its bucket, so time stays linear when thousands share a band.
_NEIGHBOURS: Final = 256
_CHUNK: Final = 1 << 15


def group(images: Sequence[Image]) -> list[int]:
    """Groups images that show the same picture.

    Transitive: a chain of near-identical images is one group. Near-linear in time: at most 256 comparisons per image
    and band, with the neighbours of most similar mean brightness.

    Returns:
        A group number per image, counted from 0 in the order of first appearance.
    """
    representatives: dict[str, int] = {}
    position = [representatives.setdefault(image.sha256, len(representatives)) for image in images]
    distinct = {image.sha256: image for image in images}
    roots = _near_identical(
        np.array([distinct[sha256].dhash for sha256 in representatives], np.uint64),
        np.frombuffer(b"".join(distinct[sha256].thumbnail for sha256 in representatives), np.uint8),
    )
    numbers: dict[int, int] = {}
    return [numbers.setdefault(int(roots[at]), len(numbers)) for at in position]


def _near_identical(hashes: NDArray[np.uint64], pixels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """The root of each image's group."""
    roots = np.arange(len(hashes))
    if not len(hashes):
        return roots
    thumbnails = pixels.reshape(len(hashes), -1)
    brightness = thumbnails.mean(axis=1)
    for band in range(4):
        keys = (hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = np.lexsort((brightness, keys))
        for offset in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
            first, second = order[:-offset], order[offset:]
            same_band = keys[first] == keys[second]
            if not same_band.any():
                break
            first, second = first[same_band], second[same_band]
            close = np.bitwise_count(hashes[first] ^ hashes[second]) <= MAX_DISTANCE
            close &= roots[first] != roots[second]
            _join(roots, first[close], second[close], thumbnails)
    return roots


def _join(
    roots: NDArray[np.intp], first: NDArray[np.intp], second: NDArray[np.intp], thumbnails: NDArray[np.uint8]
) -> None:
    """Joins the groups of those pairs whose thumbnails agree. `roots` stays flat: each entry names its group's root."""
    for start in range(0, len(first), _CHUNK):
        some = slice(start, start + _CHUNK)
        agree = _likeness(thumbnails[first[some]], thumbnails[second[some]]) >= MIN_LIKENESS
        for one, other in zip(first[some][agree], second[some][agree], strict=True):
            low, high = sorted((_root(roots, one), _root(roots, other)))
            roots[high] = low
    while (flatter := roots[roots]).tobytes() != roots.tobytes():
        roots[:] = flatter


def _root(roots: NDArray[np.intp], at: np.intp) -> np.intp:
    while roots[at] != at:
        at = roots[at]
    return at


def _likeness(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Cosine between the edges of each pair of thumbnails, [pairs]. Pictures without any edge are like nothing."""
    one, other = _edges(first), _edges(second)
    scale = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.asarray((one * other).sum(axis=1) / np.maximum(scale, 1), np.float32)


def _edges(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Differences between neighbours, across and down, [pairs, 480]."""
    grey = thumbnails.reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE).astype(np.float32)
    steps = [np.diff(grey, axis=axis).clip(-_EDGE, _EDGE).reshape(len(grey), -1) for axis in (1, 2)]
    return np.concatenate(steps, axis=1)
