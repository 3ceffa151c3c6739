"""Replays a version's goldens: does this host give the answers that the trainer recorded?

Pixels must be equal byte for byte: a difference means another decode, and so a model that sees what it was not trained
on. Scores may differ by the tolerance of the engine's precision.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from protos.manifest_pb2 import Goldens
from service.errors import BrokenVersion, ImageError
from service.image import Pixels, decode
from service.version import GOLDENS, Version


def golden_pixels(version: Version, goldens: Goldens) -> Pixels:
    """Decodes the golden images as any request's and compares the pixels with the recorded ones.

    Returns:
        uint8 [N, S, S, 3].

    Raises:
        BrokenVersion: a golden is missing or its pixels differ.
    """
    folder = version.path / GOLDENS
    stack = []
    for golden in goldens.goldens:
        try:
            seen = decode((folder / golden.image).read_bytes(), version.spec)
            expected = np.asarray(Image.open(io.BytesIO((folder / golden.pixels).read_bytes())))
        except (OSError, ImageError) as error:
            reason = str(error) if isinstance(error, ImageError) else error.strerror or "not an image"  # never a path
            raise BrokenVersion(f"golden {golden.image} cannot be read: {reason}") from error
        if seen.shape != expected.shape or not np.array_equal(seen, expected):
            raise BrokenVersion(
                f"golden {golden.image}: pixels differ from the trainer's ({_difference(seen, expected)})"
            )
        stack.append(seen)
    return np.stack(stack)


def check_scores(
    predict: Callable[[Pixels], NDArray[np.float32]], pixels: Pixels, goldens: Goldens, classes: int, tolerance: float
) -> None:
    """Runs the goldens through a runtime, one by one, and compares the scores with the recorded ones.

    Raises:
        BrokenVersion: a score is further than `tolerance` from the recorded one, or not a number.
    """
    for golden, image in zip(goldens.goldens, pixels, strict=True):
        expected = np.array(golden.scores, np.float32)
        scores = predict(image[np.newaxis])
        if scores.shape != (1, classes) or expected.shape != (classes,):
            raise BrokenVersion(
                f"golden {golden.image}: expected {classes} scores, got {list(scores.shape)}, recorded {expected.size}"
            )
        difference = float(np.max(np.abs(scores[0] - expected)))
        if not difference <= tolerance:  # also true for NaN
            raise BrokenVersion(
                f"golden {golden.image}: scores differ from the trainer's by {difference:.4f}, allowed {tolerance}"
            )


def _difference(seen: Pixels, expected: Pixels) -> str:
    if seen.shape != expected.shape:
        return f"shape {list(seen.shape)}, recorded {list(expected.shape)}"
    grey_levels = np.abs(seen.astype(np.int16) - expected)
    return f"by up to {grey_levels.max()} grey levels, {grey_levels.mean():.2f} on average"
