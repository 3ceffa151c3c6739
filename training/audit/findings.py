"""What the index alone tells of files, duplicates, labels, splits and sizes. No image is opened here."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from training.dataset import Dataset, Image

SEVERITIES: Final = ("error", "warning", "note")
"""error: an accuracy measured on this means less than it says. warning: it costs accuracy. note: good to know."""

TINY_PX: Final = 32
"""A shorter side is a thumbnail: scaled up to a network's 224 px it is a blur."""

EXTREME_ASPECT: Final = 4.0
"""Long side to short side; from here on a square leaves little to recognise, whether it is cut out or squashed."""

FEW_IMAGES: Final = 20
"""Different pictures in a class; with fewer, its share of the test is a picture or three."""

UNEVEN_RATIO: Final = 3.0
VERY_UNEVEN_RATIO: Final = 10.0
"""Images in the largest class to images in the smallest."""

_ONE: Final = {"files": "file", "pairs": "pair", "groups": "group", "classes": "class", "images": "image"}
_FLAT_LEVELS: Final = 4
# RGB, grey, palette and transparency are everyday; for these the decode has to guess colours or what is white.
_USUAL_MODES: Final = ("RGB", "RGBA", "L", "LA", "P", "PA", "1")
_SIDES: Final = ("train", "validation", "test")


@dataclass(frozen=True)
class Shown:
    """One file of an example: its name relative to the dataset's root; label and split as DATA gives them."""

    path: str
    label: str | None
    split: str | None


@dataclass(frozen=True)
class Example:
    """Files that belong together in a finding, and what is to be said of them."""

    files: tuple[Shown, ...]
    note: str


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found.

    Attributes:
        kind: a stable word, such as "two-labels"; docs/audit.md lists them.
        severity: one of SEVERITIES.
        count: of what `unit` says.
        unit: "files", "pairs", "groups", "classes" or "images".
        title: what was found, in a few words.
        advice: what it means and what to do.
        examples: all of them, the worst first.
    """

    kind: str
    severity: str
    count: int
    unit: str
    title: str
    advice: str
    examples: tuple[Example, ...]

    @property
    def amount(self) -> str:
        """Count and unit, such as "1 class" or "38 pairs"."""
        return f"{self.count} {_ONE[self.unit] if self.count == 1 else self.unit}"


@dataclass(frozen=True)
class Audit:
    """What was looked at and found.

    Attributes:
        dataset: what was looked at.
        findings: errors first.
        left_out: what was not looked for, and why.
    """

    dataset: Dataset
    findings: tuple[Finding, ...]
    left_out: tuple[str, ...] = ()


def look(dataset: Dataset, groups: Sequence[int], blocks: Sequence[int]) -> list[Finding]:
    """Looks for everything that needs no network.

    Args:
        dataset: what was indexed.
        groups: from `duplicates.group`.
        blocks: from `grouping.merge`, or `groups` again.

    Returns:
        What was found, errors first; kinds of which there is nothing are not there.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    same = [positions for positions in members.values() if len(positions) > 1]
    found = [
        _two_labels(dataset, same),
        _leaks(dataset, same),
        _block_leaks(dataset, groups, blocks),
        _unreadable(dataset),
        _few(dataset, members.values()),
        _uneven(dataset),
        _tiny(dataset),
        _flat(dataset),
        _extreme(dataset),
        _identical(dataset),
        _near_identical(dataset, same),
        _unusual_mode(dataset),
    ]
    return in_order(finding for finding in found if finding.count)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, notes last; otherwise as they come."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def example(dataset: Dataset, positions: Sequence[int], note: str) -> Example:
    """An example of these images."""
    return Example(tuple(_shown(dataset, dataset.images[position]) for position in positions), note)


def _shown(dataset: Dataset, image: Image) -> Shown:
    return Shown(dataset.relative(image.path), image.label, image.split)


def _unreadable(dataset: Dataset) -> Finding:
    examples = tuple(
        Example((Shown(dataset.relative(one.path), None, None),), f"{one.code}: {one.reason}")
        for one in dataset.rejected
    )
    return Finding(
        "unreadable",
        "warning",
        len(examples),
        "files",
        "files that cannot be used",
        "They are left out. Repair or remove them; the JSON lists them all under `quarantine`.",
        examples,
    )


def _two_labels(dataset: Dataset, same: Sequence[Sequence[int]]) -> Finding:
    examples = []
    for positions in same:
        labels = sorted({dataset.images[position].label for position in positions})
        if len(labels) > 1:
            examples.append(example(dataset, positions, f"labelled {' and '.join(labels)}"))
    return Finding(
        "two-labels",
        "error",
        len(examples),
        "groups",
        "the same picture under two labels",
        "At least one label is wrong, or the classes overlap. Such pictures are trained on but never graded.",
        tuple(examples),
    )


def _leaks(dataset: Dataset, same: Sequence[Sequence[int]]) -> Finding:
    examples = []
    for positions in same:
        sides = _given_sides(dataset, positions)
        if len(sides) > 1:
            examples.append(example(dataset, positions, f"given to {' and '.join(sides)}"))
    return Finding(
        "split-leaks",
        "error",
        len(examples),
        "groups",
        "the same picture on two sides of the given splits",
        "An accuracy on these splits flatters. `train` leaves such pictures out of the side that learns from them.",
        tuple(examples),
    )


def _block_leaks(dataset: Dataset, groups: Sequence[int], blocks: Sequence[int]) -> Finding:
    """What --group-regex holds together and DATA parts, beyond what shows the same picture."""
    held: dict[int, list[int]] = defaultdict(list)
    for position, block in enumerate(blocks):
        held[block].append(position)
    examples = []
    for positions in held.values():
        sides = _given_sides(dataset, positions)
        if len(sides) > 1 and len({groups[position] for position in positions}) > 1:
            examples.append(example(dataset, positions, f"{len(positions)} images, given to {' and '.join(sides)}"))
    return Finding(
        "group-leaks",
        "error",
        len(examples),
        "groups",
        "groups of --group-regex on two sides of the given splits",
        "An accuracy on these splits flatters. `train` keeps of each group what is given to the strongest side: test, "
        "then validation, then train.",
        tuple(sorted(examples, key=lambda one: -len(one.files))),
    )


def _given_sides(dataset: Dataset, positions: Sequence[int]) -> list[str]:
    """Sides that DATA gives these images; one that says nothing is train."""
    given = {dataset.images[position].split or "train" for position in positions}
    return [side for side in _SIDES if side in given]


def _identical(dataset: Dataset) -> Finding:
    by_content: dict[str, list[int]] = defaultdict(list)
    for position, image in enumerate(dataset.images):
        by_content[image.sha256].append(position)
    copies = [positions for positions in by_content.values() if len(positions) > 1]
    examples = tuple(
        example(dataset, positions, f"{len(positions)} files" if len(positions) > 2 else "") for positions in copies
    )
    return Finding(
        "identical",
        "note",
        sum(_pairs(len(positions)) for positions in copies),
        "pairs",
        "files that are byte for byte the same",
        "One of each is trained or tested on, and all are on one side of the split.",
        examples,
    )


def _near_identical(dataset: Dataset, same: Sequence[Sequence[int]]) -> Finding:
    examples, pairs = [], 0
    for positions in same:
        content = Counter(dataset.images[position].sha256 for position in positions)
        if len(content) > 1:
            pairs += _pairs(len(positions)) - sum(_pairs(files) for files in content.values())
            note = f"{len(positions)} files, {len(content)} of them different" if len(positions) > 2 else ""
            examples.append(example(dataset, positions, note))
    return Finding(
        "near-identical",
        "note",
        pairs,
        "pairs",
        "the same picture saved, scaled or toned again",
        "All are on one side of the split; one is tested on.",
        tuple(examples),
    )


def _pairs(files: int) -> int:
    return files * (files - 1) // 2


def _few(dataset: Dataset, groups: Iterable[Sequence[int]]) -> Finding:
    different = Counter(
        label for positions in groups for label in {dataset.images[position].label for position in positions}
    )
    few = sorted((different[name], name) for name in dataset.class_names if different[name] < FEW_IMAGES)
    return Finding(
        "few-images",
        "warning",
        len(few),
        "classes",
        f"classes with under {FEW_IMAGES} different pictures",
        "Their accuracy is a guess, and so is which of them the network learns. Collect more, or join classes.",
        tuple(Example((), f"{name}: {count} different picture{'s' * (count != 1)}") for count, name in few),
    )


def _uneven(dataset: Dataset) -> Finding:
    sizes = Counter(image.label for image in dataset.images)
    largest, smallest = (choose(dataset.class_names, key=lambda name: sizes[name]) for choose in (max, min))
    ratio = sizes[largest] / sizes[smallest]
    note = f"{largest} has {sizes[largest]}, {smallest} has {sizes[smallest]}: {ratio:.1f} to 1"
    return Finding(
        "uneven-classes",
        "warning" if ratio >= VERY_UNEVEN_RATIO else "note",
        sum(sizes[largest] >= UNEVEN_RATIO * sizes[name] for name in dataset.class_names),
        "classes",
        f"classes that the largest is {UNEVEN_RATIO:g} times as large as, or more",
        "Accuracy is mostly that of the large classes: look at recall by class in the report.",
        (Example((), note),),
    )


def _tiny(dataset: Dataset) -> Finding:
    return _by_picture(
        dataset,
        lambda image: TINY_PX - min(image.width_px, image.height_px) if image.width_px else 0,
        Finding(
            "tiny",
            "warning",
            0,
            "images",
            f"pictures with a side under {TINY_PX} px",
            "Thumbnails or icons: scaled up they are a blur. Replace them by the originals, or remove them.",
            (),
        ),
    )


def _extreme(dataset: Dataset) -> Finding:
    def excess(image: Image) -> float:
        sides = image.width_px, image.height_px
        return max(sides) / max(1, min(sides)) - EXTREME_ASPECT + 1e-9

    return _by_picture(
        dataset,
        excess,
        Finding(
            "extreme-aspect",
            "note",
            0,
            "images",
            f"pictures at least {EXTREME_ASPECT:g} times as long as wide",
            "Only their middle square is looked at; cut them into parts, or try --resize squash.",
            (),
        ),
    )


def _flat(dataset: Dataset) -> Finding:
    return _by_picture(
        dataset,
        lambda image: _FLAT_LEVELS + 1 - (max(image.thumbnail) - min(image.thumbnail)) if image.thumbnail else 0,
        Finding(
            "blank",
            "warning",
            0,
            "images",
            "blank pictures, all of one brightness",
            "There is nothing to recognise. Remove them, unless being blank is the class.",
            (),
        ),
    )


def _unusual_mode(dataset: Dataset) -> Finding:
    return _by_picture(
        dataset,
        lambda image: float(image.mode not in _USUAL_MODES),
        Finding(
            "unusual-mode",
            "note",
            0,
            "images",
            "pictures stored in an unusual way",
            "CMYK without its profile, 16-bit or 32-bit grey: colours or brightness are guessed, alike in training and "
            "serving. Harmless where all of a class's and the service's pictures are such.",
            (),
        ),
    )


def _by_picture(dataset: Dataset, excess: Callable[[Image], float], finding: Finding) -> Finding:
    """`finding` with the images whose excess is above 0, the largest excess first."""
    above = [(excess(image), position) for position, image in enumerate(dataset.images)]
    worst = sorted((-by, position) for by, position in above if by > 0)
    examples = []
    for _, position in worst:
        image = dataset.images[position]
        examples.append(example(dataset, [position], f"{image.width_px} x {image.height_px} px, {image.mode}"))
    return Finding(
        finding.kind,
        finding.severity,
        len(examples),
        finding.unit,
        finding.title,
        finding.advice,
        tuple(examples),
    )
