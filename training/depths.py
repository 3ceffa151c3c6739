"""Depths of a backbone: the named layers whose pooled output can stand in for, or beside, its last features.

A depth is a boundary between blocks (training/backbones.py), or FINAL. What is pooled, and how several are joined, is
said here only; computing and caching is training/features.py's.
"""

from collections.abc import Sequence
from typing import Any, Final

import keras
import numpy as np

from training import backbones
from training.backbones import Backbone

FINAL: Final = "final"
"""The backbone's own pooled features."""

_EARLIER: Final = 5
_EARLIEST: Final = 0.25


def choose(backbone: Backbone) -> tuple[str, ...]:
    """At most five boundaries spread evenly over the last three quarters of the blocks, first to last, then FINAL.

    What the first quarter computes are edges and colours, which say little once they are averaged over the picture.
    """
    *found, _ = every(backbone)
    if not found:
        return (FINAL,)
    at = np.unique(np.linspace(_EARLIEST * (len(found) - 1), len(found) - 1, _EARLIER).round().astype(int))
    return (*(found[position] for position in at), FINAL)


def every(backbone: Backbone) -> tuple[str, ...]:
    """All boundaries whose output is a picture, first to last, then FINAL."""
    found = [boundary.name for boundary in backbones.boundaries(backbone.network) if len(boundary.output.shape) == 4]
    return (*found, FINAL)


def widths(backbone: Backbone, layers: Sequence[str]) -> list[int]:
    """Pooled features of each depth."""
    return [
        backbone.width if layer == FINAL else int(backbone.network.get_layer(layer).output.shape[-1])
        for layer in layers
    ]


def model(backbone: Backbone, layers: Sequence[str] = (FINAL,)) -> Any:  # noqa: ANN401 - keras is untyped
    """One forward pass for several depths.

    Returns:
        keras.Model: images uint8 [N,S,S,3] -> the depths' pooled features side by side, float32 [N, sum of widths],
        BatchNorm in inference mode. Layers beyond the last depth asked for are not in it.
    """
    if tuple(layers) == (FINAL,):
        return backbone.features()
    network = backbone.network
    images = keras.Input((backbone.side_px, backbone.side_px, 3), dtype="uint8", name="images")
    pooled = [network.output if layer == FINAL else _pool(network.get_layer(layer).output) for layer in layers]
    together = pooled[0] if len(pooled) == 1 else keras.ops.concatenate(pooled, axis=-1)
    trunk = keras.Model(network.input, together)
    return keras.Model(images, trunk(backbone.prepare(images), training=False))


def _pool(activations: Any) -> Any:  # noqa: ANN401 - keras is untyped
    return keras.ops.mean(activations, axis=(1, 2))
