"""A version as tensors: the names that protocols of tensors use, and what they have in common.

A version takes `images`, uint8 or float32 [N, S, S, 3], or `image_bytes`, N image files, and gives `scores`,
float32 [N, C], and `classes`, the label of every score. An answer in tensors has no place for an error of one image, so
one image that fails fails the request.
"""

import itertools
from array import array
from collections.abc import Sequence
from typing import Any, Final

from service.classifier import Answer, Pixels
from service.errors import BY_CODE

IMAGES: Final = "images"
IMAGE_BYTES: Final = "image_bytes"
SCORES: Final = "scores"
CLASSES: Final = "classes"

_MAX_RANK: Final = 16


class Refusal(Exception):
    """An error that a foreign protocol has words of its own for.

    Args:
        status: the canonical status, such as "NOT_FOUND"; gRPC's codes, which HTTP faces translate.
        detail: the message for the client.
    """

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def images_of(content: bytes, count: int, *, float32: bool) -> list[Pixels]:
    """Cuts a tensor of `count` images into its images, without copying a byte."""
    view, size = memoryview(content), len(content) // count
    return [Pixels(view[index * size : (index + 1) * size], float32) for index in range(count)]


def require_all(answer: Answer) -> Answer:
    """Gives the answer back when every image has its scores.

    Raises:
        GraftError: the first failed image's, with its place where there are several.
    """
    for index, result in enumerate(answer.results):
        if result.HasField("error"):
            place = f"image {index}: " if len(answer.results) > 1 else ""
            raise BY_CODE[result.error.code](place + result.error.detail)
    return answer


def shown(shape: Sequence[int]) -> str:
    """A shape as TensorFlow and Triton write it: [1,32,32,3]. -1 stands for any number."""
    return f"[{','.join(str(size) for size in shape[:16])}{',...' if len(shape) > 16 else ''}]"


def flatten(values: object) -> tuple[list[int], bytes, bool]:
    """Nested lists of JSON numbers as a tensor.

    Returns:
        The shape, the numbers as bytes or as little-endian float32, and whether they are the latter.

    Raises:
        Refusal: lists of uneven length or depth, or something that is neither a list nor a number.
    """
    shape: list[int] = []
    flat: list[Any] = [values]
    while flat and isinstance(flat[0], list):
        size = len(flat[0])
        uneven = next((one for one in flat if not isinstance(one, list) or len(one) != size), None)
        if uneven is not None:
            found = len(uneven) if isinstance(uneven, list) else "a value"
            raise Refusal(
                "INVALID_ARGUMENT",
                f"Encountered list at unexpected size: {found} at level: {len(shape)} expected size: {size}",
            )
        shape.append(size)
        if len(shape) > _MAX_RANK:
            raise Refusal("INVALID_ARGUMENT", f"Encountered list at unexpected level: {len(shape)}")
        flat = list(itertools.chain.from_iterable(flat))
    kinds = set(map(type, flat))
    try:
        if kinds <= {int}:
            return shape, bytes(flat), False
        if kinds <= {int, float}:
            return shape, array("f", flat).tobytes(), True
    except (ValueError, OverflowError) as error:
        raise Refusal("INVALID_ARGUMENT", "JSON Value: Number is not of expected type: uint8 (0 to 255)") from error
    raise Refusal("INVALID_ARGUMENT", "expected numbers of 0 to 255 in nested lists, got something else")
