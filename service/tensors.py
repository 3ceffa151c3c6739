"""A version as tensors: what the protocols that speak of tensors have in common.

A version takes `images`, uint8 or float32 [N, S, S, 3], or `image_bytes`, N image files, and gives `scores`,
float32 [N, C], and `classes`, the label of every score. An answer in tensors has no place for an error of one image, so
one image that fails fails the request.
"""

import itertools
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from service import errors
from service.request import Answer, Pixels

IMAGES: Final = "images"
IMAGE_BYTES: Final = "image_bytes"
SCORES: Final = "scores"
CLASSES: Final = "classes"

_MAX_RANK: Final = 16

STATUS: Final[Mapping[type[errors.GraftError], str]] = {
    errors.EmptyImage: "INVALID_ARGUMENT",
    errors.InvalidBase64: "INVALID_ARGUMENT",
    errors.UnsupportedFormat: "INVALID_ARGUMENT",
    errors.CorruptImage: "INVALID_ARGUMENT",
    errors.ImageTooLarge: "INVALID_ARGUMENT",
    errors.PoisonImage: "INVALID_ARGUMENT",
    errors.NoActivationMap: "FAILED_PRECONDITION",
    errors.InvalidRequest: "INVALID_ARGUMENT",
    errors.UnsupportedMedia: "INVALID_ARGUMENT",
    errors.RequestTooLarge: "RESOURCE_EXHAUSTED",
    errors.RequestTimeout: "DEADLINE_EXCEEDED",
    errors.ModelNotFound: "NOT_FOUND",
    errors.Unauthenticated: "UNAUTHENTICATED",
    errors.Overloaded: "UNAVAILABLE",  # what both protocols say of a full queue, and on what their clients try again
    errors.DeadlineExceeded: "DEADLINE_EXCEEDED",
    errors.Unavailable: "UNAVAILABLE",
    errors.InternalError: "INTERNAL",
}
"""The canonical status of every error that a client can meet."""


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


def refusal_of(error: errors.GraftError) -> Refusal:
    """An error of ours, for a protocol that has no words of its own for it."""
    return Refusal(STATUS[type(error)], error.detail)


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
            raise errors.BY_CODE[result.error.code](place + result.error.detail)
    return answer


def shown(shape: Sequence[int]) -> str:
    """A shape as TensorFlow and Triton write it: [1,32,32,3]. -1 stands for any number."""
    return f"[{','.join(str(size) for size in shape[:16])}{',...' if len(shape) > 16 else ''}]"


def flatten(values: object) -> tuple[list[int], list[Any]]:
    """The shape of nested JSON lists, and what is in the innermost ones, one after the other.

    Raises:
        Refusal: lists of uneven length or depth.
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
    return shape, flat


def pack(numbers: Iterable[Any], *, float32: bool) -> bytes:
    """Numbers as the bytes of a tensor, uint8 or little-endian float32.

    Raises:
        Refusal: something that is no number, or no grey level.
    """
    try:
        return array("f" if float32 else "B", numbers).tobytes()
    except (TypeError, ValueError, OverflowError) as error:
        wanted = "numbers" if float32 else "integers"
        raise Refusal("INVALID_ARGUMENT", f"tensor parsing error: expected {wanted} of 0 to 255") from error
