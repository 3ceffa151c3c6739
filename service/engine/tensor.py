"""Pixels that came as numbers instead of as an image file: checked, and rounded where they are floats."""

import numpy as np

from service.errors import InvalidRequest
from service.image import Pixels


def read_pixels(values: bytes, side_px: int, *, float32: bool) -> Pixels:
    """Reads one image of a client's tensor.

    Args:
        values: the numbers, row by row: bytes, or little-endian float32.
        side_px: S.
        float32: which of the two. Floats are grey levels as well, 0 to 255; the model knows whole ones only, so they
            are rounded to the nearest, halves to the even one.

    Returns:
        uint8 [S, S, 3].

    Raises:
        InvalidRequest: another size, or a float that is no grey level.
    """
    numbers = np.frombuffer(values, "<f4" if float32 else np.uint8) if not len(values) % (4 if float32 else 1) else None
    expected = side_px * side_px * 3
    if numbers is None or numbers.size != expected:
        raise InvalidRequest(f"expected {side_px} x {side_px} x 3 values, got {len(values)} bytes")
    if float32:
        if not (numbers.min() >= 0 and numbers.max() <= 255):  # false for NaN, too
            raise InvalidRequest(f"expected values of 0 to 255, got {numbers.min():g} to {numbers.max():g}")
        numbers = np.rint(numbers).astype(np.uint8)
    pixels: Pixels = numbers.reshape(side_px, side_px, 3)
    return pixels
