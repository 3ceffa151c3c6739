"""service/engine/tensor.py: pixels that come as numbers."""

import numpy as np
import pytest

from service.engine.tensor import read_pixels
from service.errors import InvalidRequest

_SIDE_PX = 8
_VALUES = np.arange(_SIDE_PX * _SIDE_PX * 3, dtype=np.uint8)


def test_bytes_are_the_pixels() -> None:
    """Row by row, nothing changed."""
    pixels = read_pixels(_VALUES.tobytes(), _SIDE_PX, float32=False)
    assert pixels.dtype == np.uint8
    assert (pixels == _VALUES.reshape(_SIDE_PX, _SIDE_PX, 3)).all()


@pytest.mark.parametrize(
    ("given", "rounded"), [(0.0, 0), (0.49, 0), (0.5, 0), (1.5, 2), (2.5, 2), (254.5, 254), (254.51, 255), (255.0, 255)]
)
def test_floats_are_rounded_to_the_nearest_and_halves_to_the_even_one(given: float, rounded: int) -> None:
    """Of grey levels only whole ones are known to the model."""
    pixels = read_pixels(np.full(_VALUES.shape, given, "<f4").tobytes(), _SIDE_PX, float32=True)
    assert pixels.dtype == np.uint8
    assert (pixels == rounded).all()


@pytest.mark.parametrize("given", [-0.01, 255.01, float("nan"), float("inf"), float("-inf")])
def test_a_float_that_is_no_grey_level_is_refused(given: float) -> None:
    """One among good ones is enough."""
    values = _VALUES.astype("<f4")
    values[17] = given
    with pytest.raises(InvalidRequest, match="expected values of 0 to 255, got"):
        read_pixels(values.tobytes(), _SIDE_PX, float32=True)


@pytest.mark.parametrize("float32", [False, True])
@pytest.mark.parametrize("change", [-1, 1, -_VALUES.size])
def test_another_size_is_refused(change: int, *, float32: bool) -> None:
    """A client that was told the shape of another version, say."""
    size = _VALUES.size * (4 if float32 else 1) + change
    with pytest.raises(InvalidRequest, match=f"expected 8 x 8 x 3 values, got {size} bytes"):
        read_pixels(bytes(size), _SIDE_PX, float32=float32)
