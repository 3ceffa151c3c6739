"""Who is trained on, who is validated on and who is tested on.

Owns the promises that make a test accuracy mean something: images that show the same picture are on one side only, no
picture is counted twice in validation or test, and an image's side depends on its own content, not on what else is
there. Which images show the same picture is training/duplicates.py; which others stay together is training/grouping.py.
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
    """Images that show the same picture."""

    members: tuple[int, ...]  # by content hash
    labels: frozenset[str]


@dataclass(frozen=True)
class _Block:
    """Groups that stay on one side; `place` in [0, 1) is fixed by their content and the seed."""

    place: float
    groups: tuple[_Group, ...]

    @property
    def labels(self) -> frozenset[str]:
        """Of the groups that can be graded."""
        return frozenset(label for group in self.groups if len(group.labels) == 1 for label in group.labels)

    @property
    def order(self) -> tuple[float, tuple[int, ...]]:
        return self.place, self.groups[0].members


def split(
    images: Sequence[Image],
    groups: Sequence[int],
    *,
    blocks: Sequence[int] | None = None,
    seed: int = 0,
    validation: float = 0.15,
    test: float = 0.15,
) -> Split:
    """Splits images into train, validation and test.

    Each block has a place in [0, 1): a hash of the seed and of its smallest content hash. Places below `test` are
    tested on, the next `validation` validated on, the rest trained on. So an image stays where it is when others are
    added. Only a class so small that a side would stay empty gives it the block whose place is nearest.

    Without `blocks` each group is one. Blocks of several classes (a scanner, of which every class has pages) are
    placed first, by the same rule; a class that these hold is trained on, and may be missing from another side.

    Splits that DATA gives are kept: images without a word count as train, and a side that nobody is given to is carved
    out of train by the same rule. Between sides the test wins over validation, and both over train.

    A group under several labels cannot be graded, so it is only trained on; images of it that DATA gives to validation
    or test are left out. The same holds for what stays in a block with images that are given to another side.

    Args:
        images: what `index` found.
        groups: the group of each image, from `duplicates.group`.
        blocks: the block of each image, from `grouping.merge`; a group lies in one block.
        seed: another seed gives another split.
        validation: share of the blocks; 0 carves no validation.
        test: share of the blocks; 0 carves no test.

    Raises:
        DataError: a class has too few blocks to put one on each side, or no image to train on.
        ValueError: the shares leave nothing to train on, or `groups` or `blocks` is not as long as `images`.
    """
    blocks = groups if blocks is None else blocks
    if not len(blocks) == len(groups) == len(images):
        raise ValueError(
            f"groups and blocks must have one entry per image. Received: {len(groups)}, {len(blocks)} for {len(images)}"
        )
    if validation < 0 or test < 0 or validation + test >= 1:
        raise ValueError(f"shares must be 0 or more and together below 1. Received: {validation} and {test}")
    given = {image.split for image in images}
    shares = {
        side: share for side, share in (("test", test), ("validation", validation)) if side not in given and share
    }
    sides: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    mixed: list[_Block] = []
    free: dict[str, list[_Block]] = defaultdict(list)
    for block in _blocks(images, groups, blocks, seed):
        side = _given_side(block, images)
        if side is not None:
            sides[side] += _kept([block], images, side, shares)
        elif len(block.labels) > 1:
            mixed.append(block)
        else:
            free[next(iter(block.labels))].append(block)
    shared = {label for block in mixed for label in block.labels}
    only_shared = shared - free.keys()
    labels = sorted({image.label for image in images} - only_shared)
    carved = [_carve_mixed(mixed, only_shared, shares)]
    carved += [_carve(label, free[label], shares, shared=label in shared) for label in labels]
    for one in carved:
        for side, chosen in one.items():
            sides[side] += _kept(chosen, images, side, shares)
    _check_sides(sides, shares)
    _check_train(images, sides["train"])
    left_out = set(range(len(images))).difference(*sides.values())
    train, validated, tested = (tuple(sorted(sides[side])) for side in ("train", "validation", "test"))
    return Split(train, validated, tested, tuple(sorted(left_out)))


def _blocks(images: Sequence[Image], groups: Sequence[int], blocks: Sequence[int], seed: int) -> list[_Block]:
    members: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, (group, block) in enumerate(zip(groups, blocks, strict=True)):
        members[block][group].append(number)
    result = []
    for held in members.values():
        together = []
        for numbers in held.values():
            numbers.sort(key=lambda number: (images[number].sha256, number))
            together.append(_Group(tuple(numbers), frozenset(images[number].label for number in numbers)))
        together.sort(key=lambda group: (images[group.members[0]].sha256, group.members))
        digest = hashlib.sha256(f"{seed}:{images[together[0].members[0]].sha256}".encode()).digest()
        result.append(_Block(int.from_bytes(digest[:8]) / 2**64, tuple(together)))
    return result


def _given_side(block: _Block, images: Sequence[Image]) -> str | None:
    """The side that is settled before any carving, or None where the block's place decides."""
    if not block.labels:
        return "train"
    given = {images[number].split for group in block.groups if len(group.labels) == 1 for number in group.members}
    return next((side for side in ("test", "validation") if side in given), None)


def _carve(label: str, blocks: list[_Block], shares: Mapping[str, float], *, shared: bool) -> dict[str, list[_Block]]:
    """Cuts one class's own blocks; `shared` says that blocks of several classes hold this one too."""
    if shares and len(blocks) <= len(shares):
        if shared:
            return {"train": blocks}
        raise DataError(
            f"class {label!r} has {len(blocks)} different images to split into {', '.join([*shares, 'train'])}; it "
            f"needs at least {len(shares) + 1}, and more to be worth it"
        )
    return _cut(blocks, shares)


def _carve_mixed(blocks: list[_Block], needed: set[str], shares: Mapping[str, float]) -> dict[str, list[_Block]]:
    """Cuts the blocks of several classes; those of `needed`, which have no others, are at least trained on."""
    sides = _cut(blocks, shares) if len(blocks) > len(shares) else {"train": blocks}
    for label in sorted(needed):
        if any(label in block.labels for block in sides["train"]):
            continue
        found = [(block.order, side) for side in shares for block in sides[side] if label in block.labels]
        order, side = max(found)
        sides["train"] += [block for block in sides[side] if block.order == order]
        sides[side] = [block for block in sides[side] if block.order != order]
    return sides


def _cut(blocks: list[_Block], shares: Mapping[str, float]) -> dict[str, list[_Block]]:
    """Cuts blocks, in the order of their places, into the sides of `shares` and train, with at least one for each."""
    ordered = sorted(blocks, key=lambda block: block.order)
    result, start, threshold = {}, 0, 0.0
    for position, side in enumerate(shares):
        threshold += shares[side]
        count = sum(block.place < threshold for block in ordered)
        # At least one here, and at least one for each side that is still to come.
        stop = min(max(count, start + 1), len(ordered) - (len(shares) - position))
        result[side], start = ordered[start:stop], stop
    result["train"] = ordered[start:]
    return result


def _kept(blocks: Sequence[_Block], images: Sequence[Image], side: str, shares: Mapping[str, float]) -> list[int]:
    """The images that stand for these blocks' groups on a side; the others are left out."""
    kept: list[int] = []
    for group in (group for block in blocks for group in block.groups):
        if side == "train":
            distinct: dict[tuple[str, str], int] = {}
            for number in group.members:
                if images[number].split in (None, "train"):
                    distinct.setdefault((images[number].sha256, images[number].label), number)
            kept += distinct.values()
        elif len(group.labels) == 1:
            kept += [number for number in group.members if side in shares or images[number].split == side][:1]
    return kept


def _check_sides(sides: Mapping[str, Sequence[int]], shares: Mapping[str, float]) -> None:
    empty = [side for side in shares if not sides[side]]
    if empty:
        raise DataError(
            f"expected groups for every side; too few images may be parted from each other to leave any for: "
            f"{', '.join(empty)}. A --group-regex that captures more makes smaller groups"
        )


def _check_train(images: Sequence[Image], train: Sequence[int]) -> None:
    missing = sorted({image.label for image in images} - {images[number].label for number in train})
    if missing:
        raise DataError(f"expected images to train on in every class; none are left for: {', '.join(missing)}")
