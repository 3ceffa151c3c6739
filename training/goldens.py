"""The golden images of a version: real files with the pixels and the scores that must come out of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from PIL import Image as Pillow

from protos.manifest_pb2 import Golden, Goldens
from service.image import ImageSpec, Pixels, decode
from service.version import GOLDENS
from training import pixels
from training.dataset import Image


@dataclass(frozen=True)
class Written:
    """The goldens as they were written: files, pixels uint8 [N,S,S,3], scores float32 [N,C]."""

    files: Sequence[bytes]
    pixels: Pixels
    scores: NDArray[np.float32]


FEWEST: Final = 5
MOST: Final = 10

_LARGE_BYTES: Final = 2 << 20


def choose(images: Sequence[Image], labels: NDArray[np.intp], scores: NDArray[np.float32]) -> list[int]:
    """Chooses 5-10 images (fewer only where there are fewer) that cover the classes.

    Preferred: images that the model was not fitted on and is sure and right about, because the scores of sure answers
    move least between engines and precisions; and of these the smallest and the largest files, for variety.

    Args:
        images: to choose from.
        labels: class number per image.
        scores: held-out scores, float32 [N,C].

    Returns:
        Positions in `images`.
    """
    classes = np.unique(labels)
    count = min(MOST, max(FEWEST, 2 * len(classes)), len(images))
    if len(classes) > count:
        classes = classes[np.linspace(0, len(classes) - 1, count).astype(int)]
    queues = [_preferred(images, np.flatnonzero(labels == label), label, scores) for label in classes]
    chosen: list[int] = []
    while len(chosen) < count and any(queues):
        chosen += [queue.pop(0) for queue in queues if queue]
    return chosen[:count]


def write(
    images: Sequence[Image], scores: Callable[[Pixels], NDArray[np.float32]], spec: ImageSpec, folder: Path
) -> Written:
    """Writes goldens/NN.ext, goldens/NN.pixels.png and goldens/goldens.json into a version directory.

    Args:
        images: the chosen ones.
        scores: the trained model, uint8 [N,S,S,3] -> float32 [N,C].
        spec: how pixels are made.
        folder: the version directory.
    """
    target = folder / GOLDENS
    target.mkdir(parents=True)
    files = [pixels.read(image) for image in images]
    stack = np.stack([decode(file, spec) for file in files])
    expected = scores(stack)
    message = Goldens()
    for number, image in enumerate(images):
        name, name_of_pixels = f"{number:02d}{image.path.suffix.lower()}", f"{number:02d}.pixels.png"
        (target / name).write_bytes(files[number])
        Pillow.fromarray(stack[number]).save(target / name_of_pixels)
        message.goldens.append(
            Golden(image=name, pixels=name_of_pixels, label=image.label, scores=expected[number].tolist())
        )
    text = json_format.MessageToJson(message, preserving_proto_field_name=True)
    (target / "goldens.json").write_text(text + "\n", encoding="utf-8")
    return Written(files, stack, expected)


def _preferred(
    images: Sequence[Image], members: NDArray[np.intp], label: np.intp, scores: NDArray[np.float32]
) -> list[int]:
    """The members of one class, best first."""
    sure = sorted(members, key=lambda at: (scores[at].argmax() != label, -scores[at, label]))
    best = sure[: max(3, len(sure) // 4)]
    size = {at: images[at].path.stat().st_size for at in best}
    # A huge file would only make the version large.
    by_size = sorted(best, key=lambda at: (size[at] > _LARGE_BYTES, size[at]))
    ends = [by_size[0], by_size[-1]] if size[by_size[-1]] <= _LARGE_BYTES else by_size[:2]
    order = [*ends, *best, *sure]
    return [int(at) for at in dict.fromkeys(order)]
