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
_NEIGHBOURS: Final = 128
_CHUNK: Final = 1 << 14

_BANDS: Final = 4

_Numbers = NDArray[np.intp]
_Hashes = NDArray[np.uint64]


def group(images: Sequence[Image]) -> list[int]:
    """Groups images that show the same picture.

    Transitive: a chain of near-identical images is one group. Near-linear in time: where many images share a band,
    each is compared with the 128 of most similar mean brightness.

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


def _near_identical(hashes: _Hashes, pixels: NDArray[np.uint8]) -> _Numbers:
    """The root of each image's group."""
    roots = np.arange(len(hashes))
    if not len(hashes):
        return roots
    thumbnails = pixels.reshape(len(hashes), THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    edges = _edges(thumbnails)
    brightness = thumbnails.mean(axis=(1, 2))
    has_edges = np.asarray(edges.any(axis=1))  # a blank page is like nothing but its own bytes
    ranks: list[_Numbers] = []  # of each image, in the order of each band so far
    for band in range(_BANDS):
        keys = _band(hashes, band)
        order = np.lexsort((brightness, keys))
        order = order[has_edges[order]]
        ranks.append(np.zeros_like(roots))
        ranks[band][order] = np.arange(len(order))
        for offset in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
            first, second = order[:-offset], order[offset:]
            same = keys[first] == keys[second]
            if not same.any():
                break
            first, second = first[same], second[same]
            close = (np.bitwise_count(hashes[first] ^ hashes[second]) <= MAX_DISTANCE) & (roots[first] != roots[second])
            first, second = first[close], second[close]
            fresh = _fresh(hashes[first] ^ hashes[second], [rank[first] - rank[second] for rank in ranks[:band]])
            _join(roots, first[fresh], second[fresh], edges)
    return roots


def _band(hashes: _Hashes, number: int) -> _Hashes:
    return (hashes >> np.uint64(16 * number)) & np.uint64(0xFFFF)


def _fresh(differing: _Hashes, apart: Sequence[_Numbers]) -> NDArray[np.bool_]:
    """Which pairs have not been candidates in a lower band: those that differ there, or were too far apart in a crowd.

    Args:
        differing: the bits in which the hashes of each pair differ.
        apart: for each lower band, how far each pair was apart in its order.
    """
    fresh = np.ones(len(differing), np.bool_)
    for lower, distance in enumerate(apart):
        fresh &= (_band(differing, lower) != 0) | (np.abs(distance) > _NEIGHBOURS)
    return fresh


def _join(roots: _Numbers, first: _Numbers, second: _Numbers, edges: NDArray[np.int8]) -> None:
    """Joins the groups of those pairs whose edges agree. `roots` stays flat: each entry names its group's root."""
    for start in range(0, len(first), _CHUNK):
        some = slice(start, start + _CHUNK)
        agree = _likeness(edges[first[some]], edges[second[some]]) >= MIN_LIKENESS
        for one, other in zip(first[some][agree].tolist(), second[some][agree].tolist(), strict=True):
            low, high = sorted((_root(roots, one), _root(roots, other)))
            roots[high] = low
    while (flatter := roots[roots]).tobytes() != roots.tobytes():
        roots[:] = flatter


def _root(roots: _Numbers, at: int) -> int:
    while roots[at] != at:
        at = int(roots[at])
    return at


def _edges(thumbnails: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Differences between neighbours, across and down, cut at _EDGE: [images, 480]."""
    grey = thumbnails.astype(np.int16)
    steps = [np.diff(grey, axis=axis).clip(-_EDGE, _EDGE).astype(np.int8) for axis in (1, 2)]
    return np.concatenate([step.reshape(len(grey), -1) for step in steps], axis=1)


def _likeness(first: NDArray[np.int8], second: NDArray[np.int8]) -> NDArray[np.float32]:
    """Cosine between the edges of each pair: [pairs]."""
    one, other = first.astype(np.float32), second.astype(np.float32)
    dot, lengths = np.einsum("ij,ij->i", one, other), [np.einsum("ij,ij->i", side, side) for side in (one, other)]
    return np.asarray(dot / np.sqrt(lengths[0] * lengths[1]), np.float32)
