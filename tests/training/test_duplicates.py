"""training.duplicates: what shows the same picture is one group, what does not is not."""

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from training import duplicates
from training.dataset import Image, index
from training.documents import generate
from training.duplicates import group

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
EDGY = bytes(np.random.default_rng(0).integers(0, 255, 256, np.uint8))


def image(content: int, dhash: int, thumbnail: bytes = EDGY) -> Image:
    """An image that was never a file."""
    return Image(Path(f"{content}.png"), "a", None, f"{content:064x}", dhash, thumbnail)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=40))
def test_groups_are_the_connected_images(pairs):
    """With thumbnails alike, groups are exactly the chains of equal bytes or hashes at most 3 bits apart."""
    hashes = [0, 0b111, 0b111111, 0b1111 << 30, (0b11 << 62) | 0b11, 0x0123456789ABCDEF, 0xFFFF, 0x8000000000000000]
    images = [image(content, hashes[dhash]) for content, dhash in dict(pairs).items()]
    images += [image(content, hashes[dict(pairs)[content]]) for content, _ in pairs]
    groups = group(images)
    linked = {at: {at} for at in range(len(images))}
    for one, first in enumerate(images):
        for other, second in enumerate(images):
            if (first.dhash ^ second.dhash).bit_count() <= 3:
                union = linked[one] | linked[other]
                for member in union:
                    linked[member] = union
    for one in range(len(images)):
        assert {other for other in range(len(images)) if groups[other] == groups[one]} == linked[one]


@given(st.integers(0, 2**64 - 1), st.sets(st.integers(0, 63), min_size=1, max_size=8))
def test_three_bits_wherever_they_are(dhash, bits):
    """The bands find every pair up to distance 3, and none beyond."""
    other = dhash
    for bit in bits:
        other ^= 1 << bit
    first, second = group([image(1, dhash), image(2, other)])
    assert (first == second) == (len(bits) <= 3)


def test_colliding_hashes_of_different_pictures_stay_apart():
    """Equal hashes do not merge what the thumbnails tell apart; blank pages are like nothing but their own bytes."""
    other = bytes(np.random.default_rng(1).integers(0, 255, 256, np.uint8))
    blank = bytes([255] * 256)
    images = [image(1, 0), image(2, 0, other), image(3, 0, blank), image(4, 0, blank), image(4, 0, blank)]
    assert group(images) == [0, 1, 2, 3, 3]
    assert group([]) == []


def test_copies_of_a_picture(tmp_path):
    """Saved again at other sizes, qualities, formats and tones, a picture stays in its group."""
    noise = np.random.default_rng(0).integers(0, 200, (2, 7, 9, 3), np.uint8)
    for label, pixels in zip("ab", noise, strict=True):
        (tmp_path / label).mkdir()
        picture = Pillow.fromarray(pixels).resize((500, 400), Pillow.Resampling.BICUBIC)
        picture.save(tmp_path / label / "1.png")
        picture.save(tmp_path / label / "2.jpg", quality=40)
        picture.resize((200, 160)).save(tmp_path / label / "3.webp")
        picture.point(lambda value: value * 0.8 + 30).save(tmp_path / label / "4.jpg")
    assert group(index(tmp_path, tmp_path).images) == [0, 0, 0, 0, 1, 1, 1, 1]


def test_generated_documents_are_all_different(tmp_path):
    """26 different pages, mostly white and some with the same black border, are 26 groups."""
    generate(tmp_path, 2)
    groups = group(index(tmp_path, tmp_path).images)
    assert len(set(groups)) == len(groups) == 26


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs of thumbnails are compared, call by call."""
    counts: list[int] = []
    original = duplicates._likeness

    def counted(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        counts.append(len(first))
        return original(first, second)

    monkeypatch.setattr(duplicates, "_likeness", counted)
    return counts


def test_a_crowd_in_one_bucket(compared: list[int]):
    """2,000 noisy pages with one hash, the worst case: each is compared with 128, once, not with all 2,000."""
    noise = np.random.default_rng(0).integers(230, 256, (2_000, 256), np.uint8)
    groups = group([image(number, 0, noise[number].tobytes()) for number in range(len(noise))])
    assert len(set(groups)) == 2_000
    assert sum(compared) <= 128 * 2_000


def test_comparisons_grow_with_the_images(compared: list[int]):
    """20,000 images with uneven hashes, some buckets crowded: few thumbnails are compared, and every copy is found."""
    random = np.random.default_rng(0)
    hashes = (random.integers(0, 2**64, 19_900, np.uint64) & random.integers(0, 2**64, 19_900, np.uint64)).tolist()
    images = [image(number, dhash) for number, dhash in enumerate(hashes)]
    images += [image(50_000 + number, dhash ^ 0b101) for number, dhash in enumerate(hashes[:100])]
    groups = group(images)
    assert groups[19_900:] == groups[:100]
    assert sum(compared) < len(images)


@pytest.mark.skipif(not SHARED.exists(), reason="../shared, with real photos, is absent")
def test_duplicates_of_four_classes():
    """All 38 byte-identical pairs and 18 more images are merged, within one class each; 752 pictures are left."""
    images = index(SHARED / "data" / "four-classes", Path("unused")).images
    groups = group(images)
    by_content = defaultdict(set)
    for one, number in zip(images, groups, strict=True):
        by_content[one.sha256].add(number)
    assert len(by_content) == 808 - 38
    assert all(len(numbers) == 1 for numbers in by_content.values())
    assert len(set(groups)) == 752
    names = {f"{one.label}/{one.path.name}": number for one, number in zip(images, groups, strict=True)}
    seen_by_eye = [("horses/horse-170.jpg", "horses/horse-83.jpg"), ("humans/rider-162.jpg", "humans/rider-64.jpg")]
    assert all(names[one] == names[other] for one, other in [*seen_by_eye, ("dogs/dog.180.jpg", "dogs/dog.74.jpg")])
    assert len({(number, one.label) for one, number in zip(images, groups, strict=True)}) == 752


@pytest.mark.skipif(not SHARED.exists(), reason="../shared, with real photos, is absent")
@pytest.mark.parametrize("name", ["cats-dogs", "documents"])
def test_real_pictures_without_duplicates(name):
    """2000 different photos and 118 scanned pages: nothing is merged that differs in more than its file."""
    images: Sequence[Image] = index(SHARED / "data" / name, Path("unused")).images
    assert len(set(group(images))) == len(images)


def test_a_copy_of_a_document_is_found(tmp_path):
    """A page of text saved at lower quality is in the group of the page."""
    generate(tmp_path, 1)
    page = tmp_path / "news_article" / "00000.jpg"
    page = page if page.exists() else page.with_suffix(".png")
    copy = io.BytesIO()
    Pillow.open(page).save(copy, "JPEG", quality=50)
    (page.parent / "copy.jpg").write_bytes(copy.getvalue())
    dataset = index(tmp_path, tmp_path)
    numbers = dict(zip((one.path for one in dataset.images), group(dataset.images), strict=True))
    assert numbers[page] == numbers[page.parent / "copy.jpg"]
    assert len(set(numbers.values())) == 13
