"""training.grouping and blocks in training.split: what --group-regex holds together is never parted."""

import hashlib
import re
from collections import defaultdict
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from training import grouping, linear
from training.dataset import Dataset, Image
from training.errors import DataError, SettingError
from training.split import Split, split


def _image(number: int, label: str, patient: int, given_split: str | None = None) -> Image:
    """An image whose path names its patient."""
    path = Path(f"/data/{label}/patient{patient}-{number}.png")
    return Image(path, label, given_split, hashlib.sha256(str(number).encode()).hexdigest(), 0, b"")


def _dataset(images: list[Image]) -> Dataset:
    return Dataset(tuple(images), (), tuple(sorted({image.label for image in images})), Path("/data"))


@st.composite
def _hospitals(draw, *, words=(None,)):
    """Images of two to three classes, of patients with one or several of them, with some duplicates: images, groups."""
    random = Random(draw(st.integers(0, 10**9)))
    labels = "abc"[: draw(st.integers(2, 3))]
    sick = draw(st.sampled_from([0.0, 0.3, 1.0]))
    images: list[Image] = []
    for patient in range(draw(st.integers(4 * len(labels), 40))):
        own = labels if random.random() < sick else labels[patient % len(labels)]
        word = random.choice(words)
        for _ in range(random.randint(1, 4)):
            images.append(_image(len(images), random.choice(own), patient, word))
    groups = [random.randrange(max(0, at - 3), at + 1) if random.random() < 0.1 else at for at in range(len(images))]
    return images, groups


@given(_hospitals(), st.integers(0, 5))
def test_groups_never_straddle(hospital, seed):
    """Each patient is on one side, with the patients that show one of the same pictures; nothing is lost or doubled."""
    images, groups = hospital
    blocks = grouping.merge(groups, grouping.by_path(_dataset(images), re.compile(r"patient(\d+)-")))
    try:
        result = split(images, groups, blocks=blocks, seed=seed)
    except DataError:  # so many chains that there are too few blocks
        reject()
    found = [(at, name) for name in Split.__dataclass_fields__ for at in getattr(result, name)]
    assert sorted(at for at, _ in found) == list(range(len(images)))
    by_block, by_patient, by_group = defaultdict(set), defaultdict(set), defaultdict(list)
    for at, name in found:
        if name != "duplicates_left_out":
            by_block[blocks[at]].add(name)
            by_patient[images[at].path.name.split("-")[0]].add(name)
            by_group[groups[at]].append(name)
    assert all(len(names) == 1 for names in (*by_block.values(), *by_patient.values()))
    assert all(names in (["test"], ["validation"]) or set(names) == {"train"} for names in by_group.values())
    assert {images[at].label for at in result.train} == {image.label for image in images}
    assert result.test
    assert result.validation


@given(_hospitals(words=("train", "validation", "test")))
def test_groups_never_straddle_given_splits(hospital):
    """Where DATA gives splits, images stay there or are left out, and no block is on two sides."""
    images, groups = hospital
    blocks = grouping.merge(groups, grouping.by_path(_dataset(images), re.compile(r"patient(\d+)-")))
    try:
        result = split(images, groups, blocks=blocks)
    except DataError:  # a class whose training images are all left out
        reject()
    by_block, given_words = defaultdict(set), {image.split for image in images}
    for name in ("train", "validation", "test"):
        for at in getattr(result, name):
            by_block[blocks[at]].add(name)
            assert images[at].split == (name if name in given_words else "train")
    assert all(len(names) == 1 for names in by_block.values())


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=30))
def test_merge_is_the_transitive_closure(pairs):
    """Two images are together exactly when a chain of images leads from one to the other."""
    one, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    merged = grouping.merge(one, other)
    reach = [{at} for at in range(len(pairs))]
    for _ in pairs:
        for at, (left, right) in enumerate(pairs):
            near = [to for to, (first, second) in enumerate(pairs) if first == left or second == right]
            reach[at] = reach[at].union(*(reach[to] for to in near))
    assert all({to for to in range(len(pairs)) if merged[to] == merged[at]} == reach[at] for at in range(len(pairs)))
    assert list(dict.fromkeys(merged)) == list(range(len(set(merged))))


def test_groups_are_what_is_captured():
    """All captured groups together name the group, at any place of the relative path; the rest stand alone."""
    images = [_image(0, "a", 1), _image(1, "b", 1), _image(2, "a", 2), _image(3, "b", 22)]
    assert grouping.by_path(_dataset(images), re.compile(r"patient(\d+)")) == [0, 0, 1, 2]
    assert grouping.by_path(_dataset(images), re.compile(r"^(.)/patient(\d)")) == [0, 1, 2, 3]
    assert grouping.by_path(_dataset(images), re.compile("(patient1)-")) == [0, 0, 1, 2]
    assert grouping.by_path(_dataset(images), re.compile(r"/patient(.)\d*-")) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"), [("(patient", "regular expression"), ("patient[0-9]+", "captures nothing")]
)
def test_a_regex_that_cannot_be_used(text, message):
    """It is said what was expected and what came."""
    with pytest.raises(SettingError, match=message):
        grouping.compile_regex(text)


def test_a_regex_that_matches_nothing():
    """The error shows a path, so that one sees what could be matched."""
    with pytest.raises(SettingError, match=r"none of 1, such as 'a/patient1-0\.png'"):
        grouping.by_path(_dataset([_image(0, "a", 1)]), grouping.compile_regex("(scanner)"))


def test_too_few_groups():
    """One scanner with everything cannot be parted: an error, not an empty test."""
    images = [_image(number, "ab"[number % 2], 1) for number in range(40)]
    with pytest.raises(DataError, match="expected groups for every side"):
        split(images, range(40), blocks=[0] * 40)


def test_folds_keep_groups_of_several_classes():
    """Out-of-fold scores exist for groups of both classes: labels without meaning but for the patient do not help."""
    random = np.random.default_rng(0)
    patients = np.repeat(np.arange(30), 8)
    features = (random.normal(0, 1, (30, 40))[patients] + random.normal(0, 0.1, (240, 40))).astype(np.float32)
    # each patient has both classes, one of them seven times: what is learnt of a patient is worth nothing for others
    common = random.integers(0, 2, 30)[patients]
    labels = np.where(np.arange(240) % 8 == 0, 1 - common, common)
    grouped = linear.fit(features, labels, patients, 2)
    careless = linear.fit(features, labels, range(240), 2)
    assert grouped.tried
    assert np.mean(grouped.scores.argmax(axis=1) == labels) < 0.65
    assert np.mean(careless.scores.argmax(axis=1) == labels) > 0.8
