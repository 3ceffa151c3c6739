"""Requests of the tensor protocols that are small and claim much: refused before there is anything of it."""

import tracemalloc
from types import SimpleNamespace
from typing import Any, cast

import pytest

from protos import open_inference_pb2 as oip
from protos import tensorflow_serving_pb2 as tfs
from service.classifier import Classifier
from service.errors import RequestTooLarge
from service.open_inference import OpenInference
from service.request import Pixels
from service.routes import VersionRoute
from service.tensorflow_serving import TensorFlowServing
from service.tensors import Refusal
from service.terms import Terms

_SIDE_PX = 224
_MUCH = 4 << 20


def _classifier() -> Classifier:
    """What the protocols ask of one that serves version 1 of "pets"."""
    model = SimpleNamespace(versions={1: VersionRoute("AVAILABLE", side_px=_SIDE_PX, class_names=("a", "b"))})
    stand_in = SimpleNamespace(resolve=lambda *_: ("pets", 1), routes=SimpleNamespace(models={"pets": model}))
    return cast("Classifier", stand_in)


def _predict(count: int, **values: Any) -> tfs.PredictRequest:
    request = tfs.PredictRequest(model_spec={"name": "pets"})
    tensor = tfs.TensorProto(dtype=tfs.DT_FLOAT, **values)
    for size in (count, _SIDE_PX, _SIDE_PX, 3):
        tensor.tensor_shape.dim.add(size=size)
    request.inputs["images"].CopyFrom(tensor)
    return request


def test_a_tensor_is_not_filled_beyond_the_largest_message() -> None:
    """One number may stand for all, but not for more than a request could hold."""
    size = _SIDE_PX * _SIDE_PX * 3 * 4
    face = TensorFlowServing(_classifier(), max_images=128, max_bytes=2 * size)
    images = face.read_predict(_predict(2, float_val=[7.0]), Terms()).images
    assert [len(image.values) for image in images if isinstance(image, Pixels)] == [size, size]
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLarge, match=f"expected at most {2 * size} bytes .* got {128 * size}"):
            face.read_predict(_predict(128, float_val=[7.0]), Terms())
        assert tracemalloc.get_traced_memory()[1] < _MUCH
    finally:
        tracemalloc.stop()


def test_a_tensor_that_is_all_there_is_not_limited_twice() -> None:
    """Who takes the message decides how large it may be."""
    face = TensorFlowServing(_classifier(), max_images=128, max_bytes=1)
    request = _predict(1, float_val=[7.0] * (_SIDE_PX * _SIDE_PX * 3))
    assert len(face.read_predict(request, Terms()).images) == 1


def test_noughts_do_not_become_millions_of_empty_files() -> None:
    """Every four bytes of a BYTES tensor may be an element; reading stops with the first that is too many."""
    request = oip.ModelInferRequest(model_name="pets", raw_input_contents=[bytes(1 << 20)])
    request.inputs.add(name="image_bytes", datatype="BYTES", shape=[1])
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match="expected 1 strings for inference input 'image_bytes', got more"):
            OpenInference(_classifier(), max_images=128).read_infer(request, Terms())
        assert tracemalloc.get_traced_memory()[1] < _MUCH
    finally:
        tracemalloc.stop()
