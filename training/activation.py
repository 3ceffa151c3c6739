"""Finds what class activation maps are made of in a trained graph, whatever strategy trained it.

Looked for from the scores backwards: softmax, bias, kernel, mean-pooled feature maps of one or several depths. What is
found is given out as further results of the same graph, so an export holds the weights once. The definition of the maps
is service/engine/activation.py.
"""

from collections.abc import Sequence
from typing import Any, Final

import tensorflow as tf

from service.engine.activation import combine
from training.graph import Tensor

_PASSED: Final = ("Identity", "Cast")
_PLACES: Final = [1, 2]
"""Height and width of [N,h,w,D]."""


def expose(scores: Any) -> Any | None:  # noqa: ANN401 - tensorflow is untyped
    """The same graph with what its head is made of as further results.

    Args:
        scores: frozen function, images uint8 [N,S,S,3] -> [scores float32 [N,C]].

    Returns:
        A concrete function: images -> [scores, kernel [sum of D, C], bias [C], feature maps [N,h,w,D] of each depth].
        None where the scores are not linear in mean-pooled feature maps, and where these have one place only.
    """
    softmax = _before(scores.outputs[0])
    add = _before(softmax.inputs[0]) if softmax.type == "Softmax" else softmax
    product = _before(add.inputs[0]) if add.type in {"BiasAdd", "AddV2"} else add
    if product.type != "MatMul":
        return None
    joined = _before(product.inputs[0])
    pools = [_before(part) for part in joined.inputs[:-1]] if joined.type == "ConcatV2" else [joined]
    if not all(_pools_places(pool) for pool in pools):
        return None
    features = [pool.inputs[0] for pool in pools]
    if max(one.shape[1] * one.shape[2] for one in features) == 1:
        return None
    return scores.prune(scores.inputs, [scores.outputs[0], product.inputs[1], add.inputs[1], *features])


def maps(results: Sequence[Tensor]) -> Tensor:
    """Of what the exposed function returns: float32 [N,h,w,C]."""
    _, kernel, bias, *features = (tf.cast(one, tf.float32) for one in results)
    return combine(features, kernel, bias, tf.einsum)


def _before(tensor: Tensor) -> Any:  # noqa: ANN401 - tensorflow is untyped
    """The operation that computes a tensor, past those that change nothing but its type."""
    operation = tensor.op
    while operation.type in _PASSED:
        operation = operation.inputs[0].op
    return operation


def _pools_places(operation: Any) -> bool:  # noqa: ANN401 - tensorflow is untyped
    """Whether it is the mean over height and width of feature maps of a known size."""
    if operation.type != "Mean" or operation.inputs[0].shape.rank != 4 or None in operation.inputs[0].shape[1:]:
        return False
    axes = tf.get_static_value(operation.inputs[1])
    return axes is not None and sorted(axes.tolist()) == _PLACES
