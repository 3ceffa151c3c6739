"""What a version is worth: the service's own answers to the test images, accuracy with interval, recall by class."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protos.manifest_pb2 import ClassMetrics, Evaluation
from service.errors import BrokenVersion
from service.offline import OfflineClassifier
from training import pixels
from training.dataset import Image

Z_95: Final = 1.959964


@dataclass(frozen=True)
class Prediction:
    """What the exported version answered about one image."""

    image: Image
    predicted: str
    score: float
    pixels_sha256: str

    @property
    def right(self) -> bool:
        """Whether that is what the image shows."""
        return self.predicted == self.image.label


def predict(
    version_dir: Path, engine: str, images: Sequence[Image], on_progress: Callable[[int, int], None]
) -> tuple[list[Prediction], str]:
    """Asks a version directory through the service's classifier and engine processes.

    Args:
        version_dir: finished but for its metrics.
        engine: one of service.settings.LOCAL_ENGINES.
        images: what to ask about.
        on_progress: called with (images done, images in all).

    Returns:
        One prediction per image, and the engine with its precision.

    Raises:
        BrokenVersion: the version does not load, or does not answer an image.
    """
    with OfflineClassifier(version_dir, engine) as classifier:
        return ask(classifier, images, on_progress), classifier.engine


def ask(
    classifier: OfflineClassifier, images: Sequence[Image], on_progress: Callable[[int, int], None]
) -> list[Prediction]:
    """As `predict`, for a version that is loaded already."""
    predictions = []
    results = classifier.classify(map(pixels.read, images), top_k=1, pixels_sha256=True)
    for image, result in zip(images, results, strict=True):
        if result.HasField("error"):
            raise BrokenVersion(f"{image.path} was not answered: {result.error.code}, {result.error.detail}")
        predictions.append(Prediction(image, result.label, result.score, result.pixels_sha256))
        on_progress(len(predictions), len(images))
    return predictions


def evaluate(
    labels: NDArray[np.intp], predicted: NDArray[np.intp], class_names: Sequence[str], engine: str = ""
) -> Evaluation:
    """Compares predictions with labels.

    Args:
        labels: class number per image.
        predicted: the same, as answered.
        class_names: by number.
        engine: what computed the answers; empty for the trainer's own Keras model.

    Returns:
        Precision of a class that was never predicted is 0, recall of one without images too; neither has an interval.
    """
    right = labels == predicted
    result = Evaluation(images=len(labels), engine=engine)
    if len(labels):
        result.accuracy = float(right.mean())
        result.accuracy_interval.extend(wilson(int(right.sum()), len(labels)))
    for number, name in enumerate(class_names):
        there, said = labels == number, predicted == number
        hits, images, answered = int((there & said).sum()), int(there.sum()), int(said.sum())
        result.classes.append(
            ClassMetrics(
                label=name,
                images=images,
                answered=answered,
                precision=hits / answered if answered else 0.0,
                precision_interval=wilson(hits, answered) if answered else (),
                recall=hits / images if images else 0.0,
                recall_interval=wilson(hits, images) if images else (),
            )
        )
    return result


def wilson(right: int, images: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; 95 % unless told (Wilson 1927)."""
    share = right / images
    centre = share + z * z / (2 * images)
    spread = z * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images))
    scale = 1 + z * z / images
    # at 0 and 1 the ends are exact; rounding must not push them outside
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def confusion(labels: NDArray[np.intp], predicted: NDArray[np.intp], classes: int) -> NDArray[np.intp]:
    """Counts [C,C]: row is the label, column is the answer."""
    counts = np.zeros((classes, classes), np.intp)
    np.add.at(counts, (labels, predicted), 1)
    return counts
