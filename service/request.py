"""What a front asks of the classifier and what it gets: values, the same for every protocol."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protos.classifier_pb2 import Result
from service.errors import ImageError, InvalidRequest

MAX_TOP_K: Final = 10_000
"""Most labels per image; what a frame to an engine can ask for is 16 bits."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """An image that needs no decode: the model's input as the client sent it. The engine checks its size and values.

    Attributes:
        values: S * S * 3 numbers, row by row: bytes, or little-endian float32 of 0 to 255.
        float32: which of the two.
    """

    values: bytes | memoryview
    float32: bool = False


@dataclass(slots=True)  # not frozen, as then setting its twelve fields takes twice as long; nobody changes them
class Request:
    """Images to classify with one version of one model.

    Attributes:
        images: whole image files, pixels, or why there is none in the request.
        model: name; empty for the only one.
        version: number; 0 for none in particular.
        top_k: labels per image, 1 to MAX_TOP_K.
        pixels_sha256: also return the digest of the pixels.
        timeout_s: seconds until the answer is of no more use.
        label: of the version; empty for none in particular.
        request_id: as the client calls the request; the same one is always answered by the canary or never.
        all_scores: also return every score, in the order of the version's class names.
        activation_map: also return the class activation map of each image's best label.
        bulk: everybody who is not goes first.
        probe: asks whether there are answers at all, so it is let in always and counted nowhere.
    """

    images: Sequence[bytes | Pixels | ImageError]
    model: str = ""
    version: int = 0
    top_k: int = 5
    pixels_sha256: bool = False
    timeout_s: float = math.inf
    label: str = ""
    request_id: str = ""
    all_scores: bool = False
    activation_map: bool = False
    bulk: bool = False
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One result per image, in the request's order, all of the same version. A failed image's result is an error.

    Attributes:
        model: the model's name.
        version: its version's number.
        results: what became of each image.
        class_names: the version's, in the order of its scores.
    """

    model: str
    version: int
    results: Sequence[Result]
    class_names: tuple[str, ...] = ()


def check_count(images: int, most: int) -> None:
    """Whether a request may hold so many images. Ask before looking at each of a million.

    Raises:
        InvalidRequest: none, or more than `most`.
    """
    if not 1 <= images <= most:
        raise InvalidRequest(f"expected 1 to {most} images in a request, got {images}")
