"""Which images stay together on one side of a split and in one fold, though they show different pictures.

A patient, a scanner, a document: what `--group-regex` finds in the images' paths, joined with what shows the same
picture. The sides themselves are training/split.py.
"""

import re
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from training.dataset import Dataset
from training.errors import SettingError


def compile_regex(text: str) -> re.Pattern[str]:
    """The pattern behind `--group-regex`.

    Raises:
        SettingError: not a regular expression, or one that captures nothing.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise SettingError(f"expected --group-regex to be a regular expression, got {text!r}: {error}") from error
    if not pattern.groups:
        raise SettingError(
            f"expected --group-regex to capture what names the group, in parentheses, such as '(patient[0-9]+)'; "
            f"{text!r} captures nothing"
        )
    return pattern


def by_path(dataset: Dataset, pattern: re.Pattern[str]) -> list[int]:
    """Groups images by what the pattern captures in their paths, relative to the dataset's root.

    An image whose path does not match is a group by itself.

    Returns:
        A group number per image, counted from 0 in the order of first appearance.

    Raises:
        SettingError: no path matches.
    """
    keys: list[Hashable] = []
    matched = 0
    for position, image in enumerate(dataset.images):
        match = pattern.search(dataset.relative(image.path))
        matched += match is not None
        keys.append(("captured", match.groups()) if match else ("alone", position))
    if not matched:
        raise SettingError(
            f"expected --group-regex {pattern.pattern!r} to match paths relative to {dataset.root}; it matches none of "
            f"{len(keys)}, such as {dataset.relative(dataset.images[0].path)!r}"
        )
    return _numbered(keys)


def merge(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """The finest groups in which images are together that are so in one grouping or the other, through any chain.

    Returns:
        A group number per image, counted from 0 in the order of first appearance.

    Raises:
        ValueError: the groupings differ in length.
    """
    if len(one) != len(other):
        raise ValueError(f"groupings must be of equal length. Received: {len(one)} and {len(other)}")
    if not one:
        return []
    first, second = np.asarray(one), np.asarray(other)
    # A graph whose nodes are the groups of both groupings, and whose edges are the images.
    nodes = int(first.max()) + int(second.max()) + 2
    edges = (np.ones(len(first), np.int8), (first, first.max() + 1 + second))
    _, component = connected_components(coo_array(edges, shape=(nodes, nodes)), directed=False)
    return _numbered(component[first].tolist())


def _numbered(keys: Sequence[Hashable]) -> list[int]:
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]
