"""training.split: the promises that make a test accuracy mean something."""

import hashlib
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from training.dataset import Image
from training.errors import DataError
from training.split import Split, split


def image(content: int, label: str = "a", given_split: str | None = None) -> Image:
    """An image whose bytes are known by a number."""
    sha256 = hashlib.sha256(str(content).encode()).hexdigest()
    return Image(Path(f"{content}.png"), label, given_split, sha256, 0, b"")


def sides(result: Split) -> dict[int, str]:
    """The side of every index, each exactly once."""
    found = [(index, name) for name in Split.__dataclass_fields__ for index in getattr(result, name)]
    assert len(dict(found)) == len(found)
    return dict(found)


@st.composite
def collections(draw, *, words=(None,)):
    """Images of two to four classes with byte-identical and near-identical copies: (images, groups)."""
    sizes = draw(st.lists(st.integers(3, 25), min_size=2, max_size=4))
    random = Random(draw(st.integers(0, 10**9)))
    found, content = [], 0
    for label, size in zip("abcd", sizes, strict=False):
        for _ in range(size):
            group = content
            for _ in range(random.choice([1, 1, 1, 2, 3])):
                content += random.randint(0, 1)
                found.append((image(content, label, random.choice(words)), group))
            content += 1
        found.append((image(content, label, words[0]), content))
        content += 1
    random.shuffle(found)
    return [one for one, _ in found], [group for _, group in found]


@given(collections(), st.integers(0, 5))
def test_nothing_lost_doubled_or_leaked(collection, seed):
    """Every image is on one side or left out; groups never straddle; evaluation and training count nothing twice."""
    images, groups = collection
    side = sides(split(images, groups, seed=seed))
    assert side.keys() == set(range(len(images)))
    by_group = defaultdict(set)
    for index, name in side.items():
        if name != "duplicates_left_out":
            by_group[groups[index]].add(name)
    assert by_group.keys() == set(groups)
    assert all(len(names) == 1 for names in by_group.values())
    evaluated = [groups[index] for index, name in side.items() if name in ("validation", "test")]
    assert len(set(evaluated)) == len(evaluated)
    trained = [images[index].sha256 for index, name in side.items() if name == "train"]
    assert len(set(trained)) == len(trained)
    by_label = {(images[index].label, name) for index, name in side.items()}
    for label in {one.label for one in images}:
        assert {(label, "train"), (label, "validation"), (label, "test")} <= by_label


@given(collections(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_order_does_not_matter(collection, seed, random):
    """The same images in another order, with other group numbers, are split the same."""
    images, groups = collection
    order = list(range(len(images)))
    random.shuffle(order)
    other = split([images[at] for at in order], [groups[at] + 7 for at in order], seed=seed)
    by_content = Counter((images[at].sha256, name) for at, name in sides(split(images, groups, seed=seed)).items())
    assert Counter((images[order[at]].sha256, name) for at, name in sides(other).items()) == by_content


@given(st.sets(st.integers(0, 10**6), max_size=60), st.integers(0, 5))
def test_adding_images_moves_none(added, seed):
    """Images stay on their side when others come; class sizes here leave every side filled by the hashes alone."""
    before = [
        image(content, label) for label in "ab" for content in range(-1, -150, -1) if content % 2 == (label == "a")
    ]
    after = before + [image(content, "ab"[content % 2]) for content in sorted(added)]
    old, new = (sides(split(images, range(len(images)), seed=seed)) for images in (before, after))
    assert {index: new[index] for index in old} == old


def test_shares_are_about_what_was_asked_for():
    """10,000 images: the sides are within 1.5 percentage points of their shares, and a seed changes them."""
    images = [image(content, "ab"[content % 2]) for content in range(10_000)]
    first = split(images, range(10_000), validation=0.1, test=0.2)
    assert abs(len(first.validation) - 1000) < 150
    assert abs(len(first.test) - 2000) < 150
    assert split(images, range(10_000), validation=0.1, test=0.2) == first
    assert split(images, range(10_000), seed=1, validation=0.1, test=0.2) != first


@pytest.mark.parametrize("count", [3, 4, 7])
def test_small_classes_are_on_every_side(count):
    """Three different images are enough for one on each side, whatever the seed."""
    images = [image(number, "ab"[number % 2]) for number in range(2 * count)]
    for seed in range(50):
        side = sides(split(images, range(2 * count), seed=seed))
        assert len({(images[index].label, name) for index, name in side.items()}) == 6


def test_too_few_images():
    """Two different images, one of them there twice, cannot be split in three; the error says what would do."""
    images = [image(number) for number in range(9)] + [image(100, "b"), image(100, "b"), image(101, "b")]
    groups = [*range(9), 10, 10, 11]
    with pytest.raises(DataError, match=r"'b' has 2 different images.*at least 3"):
        split(images, groups)
    assert len(split(images, groups, validation=0.0).test) >= 2


@given(collections(words=("train", "validation", "test")))
def test_given_splits_are_kept(collection):
    """An image stays where DATA gives it or is left out, as training images shown in an evaluation are."""
    images, groups = collection
    assume({one.split for one in images} == {"train", "validation", "test"})  # a side without images would be carved
    side = sides(split(images, groups))
    evaluated = {groups[at] for at, one in enumerate(images) if one.split != "train"}
    kept = {groups[at] for at, name in side.items() if name != "duplicates_left_out"}
    assert kept == set(groups)
    for index, name in side.items():
        assert name in (images[index].split, "duplicates_left_out")
        if images[index].split == "train" and groups[index] in evaluated:
            assert name == "duplicates_left_out"


@pytest.mark.parametrize(("there", "carved"), [("validation", "test"), ("test", "validation")])
def test_a_side_not_given_is_carved_out_of_train(there, carved):
    """Where DATA gives one evaluation side, the other comes out of train, and the given one is as it was."""
    images = [image(number, "ab"[number % 2], "train" if number < 100 else there) for number in range(120)]
    result = split(images, range(120))
    assert getattr(result, there) == tuple(range(100, 120))
    assert 2 <= len(getattr(result, carved)) < 40
    assert set(getattr(result, carved)) | set(result.train) == set(range(100))


def test_a_picture_under_two_labels_is_never_graded():
    """Its images are trained on, once for each label, and left out where DATA gives them to an evaluation."""
    images = [image(number, "ab"[number % 2]) for number in range(40)]
    images += [image(99, "a"), image(99, "b"), image(99, "b")]
    groups = [*range(40), 99, 99, 99]
    for seed in range(20):
        result = split(images, groups, seed=seed)
        assert {40, 41} <= set(result.train)
        assert 42 in result.duplicates_left_out
    images[40] = image(99, "a", "test")
    images[0] = image(0, "a", "test")
    result = split(images, groups)
    assert result.test == (0,)
    assert 40 in result.duplicates_left_out


def test_arguments_are_checked():
    """Shares that leave nothing to train on and groups of another length are the caller's mistake."""
    images = [image(number, "ab"[number % 2]) for number in range(20)]
    with pytest.raises(ValueError, match="together below 1"):
        split(images, range(20), validation=0.5, test=0.5)
    with pytest.raises(ValueError, match="one entry per image"):
        split(images, range(19))
