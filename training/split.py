"""Who is trained on, who is validated on and who is tested on.

Owns the promises that make a test accuracy mean something: images that show the same picture are on one side only, no
picture is counted twice in validation or test, and an image's side depends on its own content, not on what else is
there. Which images show the same picture is training/duplicates.py.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.dataset import Image
from training.errors import DataError


@dataclass(frozen=True)
class Split:
    """Indices into the images, ascending; each index is in exactly one of the four.

    Attributes:
        train: what is trained on. Byte-identical images are there once, near-identical ones all.
        validation: one image of each group.
        test: one image of each group.
        duplicates_left_out: images that a kept one stands for, and, where DATA gives the split, training images that
            show a picture which is validated or tested on.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    duplicates_left_out: tuple[int, ...]


@dataclass(frozen=True)
class _Group:
    """Images that show the same picture; `place` in [0, 1) is fixed by their content and the seed."""

    place: float
    members: tuple[int, ...]  # by content hash
    labels: frozenset[str]


def split(
    images: Sequence[Image], groups: Sequence[int], *, seed: int = 0, validation: float = 0.15, test: float = 0.15
) -> Split:
    """Splits images into train, validation and test.

    Each group has a place in [0, 1): a hash of the seed and of its smallest content hash. Places below `test` are
    tested on, the next `validation` validated on, the rest trained on. So an image stays where it is when others are
    added. Only a class so small that a side would stay empty gives it the group whose place is nearest.

    Splits that DATA gives are kept: images without a word count as train, and a side that nobody is given to is carved
    out of train by the same rule. Between sides the test wins over validation, and both over train.

    A group under several labels cannot be graded, so it is only trained on; images of it that DATA gives to validation
    or test are left out.

    Args:
        images: what `index` found.
        groups: the group of each image, from `duplicates.group`.
        seed: another seed gives another split.
        validation: share of the groups; 0 carves no validation.
        test: share of the groups; 0 carves no test.

    Raises:
        DataError: a class has too few groups to put one on each side, or no image to train on.
        ValueError: the shares leave nothing to train on, or `groups` is not as long as `images`.
    """
    if len(groups) != len(images):
        raise ValueError(f"groups must have one entry per image. Received: {len(groups)} for {len(images)}")
    if validation < 0 or test < 0 or validation + test >= 1:
        raise ValueError(f"shares must be 0 or more and together below 1. Received: {validation} and {test}")
    given = {image.split for image in images}
    shares = {
        side: share for side, share in (("test", test), ("validation", validation)) if side not in given and share
    }
    sides: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    free: dict[str, list[_Group]] = defaultdict(list)
    for group in _groups(images, groups, seed):
        side = _given_side(group, images)
        if side is not None:
            sides[side] += _kept(group, images, side)
        else:
            free[next(iter(group.labels))].append(group)
    for label in sorted({image.label for image in images}):
        for side, chosen in _carve(label, free[label], shares).items():
            for group in chosen:
                sides[side] += _kept(group, images, side)
    _check_train(images, sides["train"])
    left_out = set(range(len(images))).difference(*sides.values())
    train, validated, tested = (tuple(sorted(sides[side])) for side in ("train", "validation", "test"))
    return Split(train, validated, tested, tuple(sorted(left_out)))


def _groups(images: Sequence[Image], groups: Sequence[int], seed: int) -> list[_Group]:
    members: dict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        members[group].append(number)
    result = []
    for numbers in members.values():
        numbers.sort(key=lambda number: (images[number].sha256, number))
        digest = hashlib.sha256(f"{seed}:{images[numbers[0]].sha256}".encode()).digest()
        place = int.from_bytes(digest[:8]) / 2**64
        result.append(_Group(place, tuple(numbers), frozenset(images[number].label for number in numbers)))
    return result


def _given_side(group: _Group, images: Sequence[Image]) -> str | None:
    """The side that is settled before any carving, or None where the group's place decides."""
    if len(group.labels) > 1:
        return "train"
    given = {images[number].split for number in group.members}
    return next((side for side in ("test", "validation") if side in given), None)


def _carve(label: str, groups: list[_Group], shares: Mapping[str, float]) -> dict[str, list[_Group]]:
    """Cuts one class's groups, in the order of their places, into the sides of `shares` and train."""
    names = [*shares, "train"]
    if not shares:
        return {"train": groups}
    if len(groups) < len(names):
        raise DataError(
            f"class {label!r} has {len(groups)} different images to split into {', '.join(names)}; it needs at least "
            f"{len(names)}, and more to be worth it"
        )
    ordered = sorted(groups, key=lambda group: (group.place, group.members))
    result, start, threshold = {}, 0, 0.0
    for position, side in enumerate(names[:-1]):
        threshold += shares[side]
        count = sum(group.place < threshold for group in ordered)
        # At least one here, and at least one for each side that is still to come.
        stop = min(max(count, start + 1), len(ordered) - (len(names) - 1 - position))
        result[side], start = ordered[start:stop], stop
    result["train"] = ordered[start:]
    return result


def _kept(group: _Group, images: Sequence[Image], side: str) -> list[int]:
    """The members that stand for the group on its side; the others are left out."""
    if side != "train":
        given = [number for number in group.members if images[number].split == side]
        return (given or list(group.members))[:1]
    distinct: dict[tuple[str, str], int] = {}
    for number in group.members:
        if images[number].split in (None, "train"):
            distinct.setdefault((images[number].sha256, images[number].label), number)
    return list(distinct.values())


def _check_train(images: Sequence[Image], train: Sequence[int]) -> None:
    missing = sorted({image.label for image in images} - {images[number].label for number in train})
    if missing:
        raise DataError(f"expected images to train on in every class; none are left for: {', '.join(missing)}")
