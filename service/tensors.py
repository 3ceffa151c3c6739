"""A version as tensors: the names that protocols of tensors use, and what they have in common.

A version takes `images`, uint8 or float32 [N, S, S, 3], or `image_bytes`, N image files, and gives `scores`,
float32 [N, C], and `classes`, the label of every score. An answer in tensors has no place for an error of one image, so
one image that fails fails the request.
"""

from collections.abc import Sequence
from typing import Final

from service.classifier import Answer, Pixels
from service.errors import BY_CODE

IMAGES: Final = "images"
IMAGE_BYTES: Final = "image_bytes"
SCORES: Final = "scores"
CLASSES: Final = "classes"


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
