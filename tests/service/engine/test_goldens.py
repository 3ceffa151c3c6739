"""service/engine/goldens.py: a version serves only where it gives the answers that its trainer recorded."""

import numpy as np
import pytest
from PIL import Image

from protos.manifest_pb2 import Golden, Goldens, Manifest
from service.engine.goldens import check_scores, golden_pixels
from service.errors import BrokenVersion
from service.image import ImageSpec, decode
from service.version import GOLDENS, Version
from tests.pictures import encode, photo

_SPEC = ImageSpec(16)


@pytest.fixture
def version(tmp_path):
    """A version directory with two goldens and nothing else."""
    folder = tmp_path / GOLDENS
    folder.mkdir(parents=True)
    for number in range(2):
        image = encode(photo(number))
        (folder / f"{number}.jpg").write_bytes(image)
        Image.fromarray(decode(image, _SPEC)).save(folder / f"{number}.png")
    return Version(tmp_path, Manifest(class_names=["a", "b"]), _SPEC)


@pytest.fixture
def goldens():
    """What is recorded of them."""
    return Goldens(
        goldens=[Golden(image=f"{n}.jpg", pixels=f"{n}.png", label="a", scores=[0.75, 0.25]) for n in range(2)]
    )


def test_equal_pixels_are_returned(version: Version, goldens: Goldens) -> None:
    """The goldens come back decoded, in order."""
    pixels = golden_pixels(version, goldens)
    assert pixels.shape == (2, 16, 16, 3)
    assert np.array_equal(pixels[1], decode(encode(photo(1)), _SPEC))


def test_one_grey_level_in_one_channel_is_another_decode(version: Version, goldens: Goldens) -> None:
    """Pixels are compared exactly: the smallest difference there can be is found and described."""
    path = version.path / GOLDENS / "1.png"
    recorded = np.array(Image.open(path))
    recorded[3, 4, 1] ^= 1
    Image.fromarray(recorded).save(path)
    with pytest.raises(
        BrokenVersion, match=r"golden 1\.jpg: pixels differ from the trainer's \(by up to 1 grey levels"
    ):
        golden_pixels(version, goldens)


def test_another_resample_filter_is_found(version: Version, goldens: Goldens) -> None:
    """A service that resized otherwise than the trainer would be refused by the goldens."""
    other = Version(version.path, version.manifest, ImageSpec(16, resample="bicubic"))
    with pytest.raises(BrokenVersion, match="pixels differ"):
        golden_pixels(other, goldens)


def test_another_side_is_found(version: Version, goldens: Goldens) -> None:
    """Shapes are compared, not broadcast."""
    other = Version(version.path, version.manifest, ImageSpec(17))
    with pytest.raises(BrokenVersion, match=r"shape \[17, 17, 3\], recorded \[16, 16, 3\]"):
        golden_pixels(other, goldens)


@pytest.mark.parametrize("file", ["0.jpg", "0.png"])
@pytest.mark.parametrize("content", [None, b"", b"text"], ids=["missing", "empty", "text"])
def test_a_golden_that_cannot_be_read_is_refused(
    version: Version, goldens: Goldens, file: str, content: bytes | None
) -> None:
    """Whichever of the two files is at fault; the message does not say where it is."""
    path = version.path / GOLDENS / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BrokenVersion, match=r"golden 0\.jpg cannot be read: \w+") as refused:
        golden_pixels(version, goldens)
    assert str(version.path) not in str(refused.value)


@pytest.mark.parametrize(
    ("scores", "fits"),
    [
        ([0.75, 0.25], True),
        ([0.7599, 0.2401], True),
        ([0.7601, 0.2399], False),
        ([0.25, 0.75], False),
        ([0.75, np.nan], False),
        ([np.inf, 0.25], False),
    ],
    ids=["equal", "within", "just outside", "swapped", "not a number", "infinite"],
)
def test_scores_may_differ_by_the_tolerance(goldens: Goldens, scores: list[float], fits: bool) -> None:
    """0.01 allowed: anything further from the record is refused, and so is NaN, which compares with nothing."""
    pixels = np.zeros((2, 16, 16, 3), np.uint8)

    def predict(batch):
        assert batch.shape == (1, 16, 16, 3)
        return np.array([scores], np.float32)

    if fits:
        check_scores(predict, pixels, goldens, 2, 0.01)
    else:
        with pytest.raises(BrokenVersion, match=r"golden 0\.jpg: scores differ from the trainer's by"):
            check_scores(predict, pixels, goldens, 2, 0.01)


def test_every_golden_is_compared(goldens: Goldens) -> None:
    """A difference in the last golden counts as one in the first."""
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    pixels[1] = 1
    with pytest.raises(BrokenVersion, match=r"golden 1\.jpg"):
        check_scores(lambda batch: np.array([[0.75 - batch.max(), 0.25]], np.float32), pixels, goldens, 2, 0.01)


def test_a_recorded_nan_is_refused(goldens: Goldens) -> None:
    """A trainer that recorded NaN recorded nothing that could be reproduced."""
    goldens.goldens[0].scores[0] = float("nan")
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(BrokenVersion, match="differ"):
        check_scores(lambda _: np.array([[0.75, 0.25]], np.float32), pixels, goldens, 2, 0.01)


@pytest.mark.parametrize("classes", [1, 3])
def test_another_number_of_scores_is_refused(goldens: Goldens, classes: int) -> None:
    """Neither a model with other classes nor a record with others is compared by broadcasting."""
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(BrokenVersion, match=f"expected {classes} scores"):
        check_scores(lambda _: np.full((1, 2), 0.5, np.float32), pixels, goldens, classes, 0.01)
    with pytest.raises(BrokenVersion, match=rf"got \[1, {classes}\]"):
        check_scores(lambda _: np.full((1, classes), 0.75, np.float32), pixels, goldens, 2, 0.9)
