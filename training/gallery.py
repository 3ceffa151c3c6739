"""The most confident mistakes on the test images, as pictures with class activation maps over them, for the report.

The maps come from the exported version itself, through the service's classifier; what they are is
service/engine/activation.py. A version without maps still gets its pictures.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.Image import Resampling

from protos.classifier_pb2 import ActivationMap, Result
from service.engine.activation import enlargement
from service.errors import BrokenVersion, NoActivationMap
from service.image import ImageSpec, decode_picture
from service.offline import OfflineClassifier
from service.request import MAX_TOP_K
from training import pixels
from training.dataset import Dataset
from training.evaluation import Prediction

MOST: Final = 12

_LONG_SIDE_PX: Final = 176
_GRID: Final = "display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,23rem),1fr));gap:1rem"
_COLD: Final = (20, 24, 60)
_WARM: Final = ((68, 30, 110), (190, 50, 90), (250, 145, 30), (255, 240, 130))
"""Colours of 0 to 1, told apart by lightness alone, too."""


@dataclass(frozen=True)
class Mistake:
    """One test image that was answered wrongly.

    Attributes:
        prediction: the image and the answer.
        label_score: the score of what its label says.
        picture: upright, whole, small: uint8 [height,width,3].
        overlay: the same under its map; None where the version has no maps.
    """

    prediction: Prediction
    label_score: float
    picture: NDArray[np.uint8]
    overlay: NDArray[np.uint8] | None


def look(classifier: OfflineClassifier, predictions: Sequence[Prediction]) -> list[Mistake]:
    """Asks once more about the mistakes with the highest scores, now for maps.

    Args:
        classifier: of the version that gave the predictions.
        predictions: of the test images.

    Returns:
        At most MOST of them, most confident first.

    Raises:
        BrokenVersion: an image that was answered is not answered any more.
        DataError: one cannot be read any more.
    """
    wrong = [one for one in predictions if one.predicted != one.image.label]
    wrong = sorted(wrong, key=lambda one: -one.score)[:MOST]
    files = [pixels.read(one.image) for one in wrong]
    results = list(classifier.classify(files, MAX_TOP_K, activation_map=True))
    if any(result.error.code == NoActivationMap.code for result in results):
        results = list(classifier.classify(files, MAX_TOP_K))
    return [_mistake(*one) for one in zip(wrong, files, results, strict=True)]


def section(mistakes: Sequence[Mistake], dataset: Dataset) -> str:
    """The gallery as HTML; empty where there are no mistakes."""
    if not mistakes:
        return ""
    note = (
        "<p>On the right, bright is where the picture spoke for the answer, as against the classes on average; dark "
        "places did not, or spoke against it. The model did not see the shaded edges.</p>"
        if any(one.overlay is not None for one in mistakes)
        else "<p>There are no class activation maps here: this head is not linear on pooled feature maps, or these "
        "have one place only.</p>"
    )
    return f"{note}<div style='{_GRID}'>{''.join(_example(one, dataset) for one in mistakes)}</div>"


def paint(picture: NDArray[np.uint8], found: ActivationMap, scale: float) -> NDArray[np.uint8]:
    """Lays a map over a picture.

    Args:
        picture: uint8 [height,width,3].
        found: the map, whose region is in pixels of the original.
        scale: pixels of this picture for one of the original.

    Returns:
        The picture in grey, shaded outside the region, coloured by the map inside.
    """
    height, width, _ = picture.shape
    grey = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    painted = 0.35 * grey + 0.65 * np.array(_COLD)
    region = found.region_px
    top, bottom = (round(scale * edge) for edge in (region.top, region.top + region.height))
    left, right = (round(scale * edge) for edge in (region.left, region.left + region.width))
    bottom, right = min(max(bottom, top + 1), height), min(max(right, left + 1), width)
    values = np.reshape(found.values, (found.height, found.width))
    shares = enlargement(found.height, bottom - top) @ values @ enlargement(found.width, right - left).T
    painted[top:bottom, left:right] = 0.55 * grey[top:bottom, left:right] + 0.45 * _colours(shares.clip(0, 1))
    return painted.round().astype(np.uint8)


def _colours(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    stops = np.linspace(0, 1, len(_WARM))
    return np.stack([np.interp(shares, stops, [colour[band] for colour in _WARM]) for band in range(3)], axis=-1)


def _mistake(prediction: Prediction, file: bytes, result: Result) -> Mistake:
    if result.HasField("error"):
        raise BrokenVersion(f"{prediction.image.path} was answered, and now {result.error.code}: {result.error.detail}")
    image = prediction.image
    scale = _LONG_SIDE_PX / max(image.width_px, image.height_px)
    size = (max(1, round(scale * image.width_px)), max(1, round(scale * image.height_px)))
    square = decode_picture(file, ImageSpec(_LONG_SIDE_PX))
    picture = np.asarray(square.resize(size, Resampling.BILINEAR))
    overlay = paint(picture, result.activation_map, scale) if result.HasField("activation_map") else None
    label_score = next((one.score for one in result.top if one.label == image.label), 0.0)
    return Mistake(prediction, label_score, picture, overlay)


def _example(mistake: Mistake, dataset: Dataset) -> str:
    one = mistake.prediction
    path = escape(dataset.relative(one.image.path))
    said, label = escape(one.predicted), escape(one.image.label)
    pictures = _img(mistake.picture, path)
    if mistake.overlay is not None:
        pictures += _img(mistake.overlay, f"where {path} looks like {said}")
    return (
        f"<div class=example><div class=files>{pictures}</div>said <b>{said}</b> {one.score:.3f}, "
        f"label <b>{label}</b> {mistake.label_score:.3f}<br>{path}</div>"
    )


def _img(picture: NDArray[np.uint8], alt: str) -> str:
    stream = io.BytesIO()
    Pillow.fromarray(picture).save(stream, "JPEG", quality=80)
    height, width, _ = picture.shape
    uri = base64.b64encode(stream.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{uri}" width={width} height={height} alt="{alt}">'
