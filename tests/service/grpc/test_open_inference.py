"""The Open Inference Protocol over gRPC: answers, and Triton's errors for wrong requests.

NVIDIA's own client is run by tests/clients/test_triton.py; here the messages are ours, whose bytes are the same.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from protos import open_inference_pb2 as oip
from service.image import ImageSpec, decode
from tests.conftest import CLASSES, SIDE_PX
from tests.pictures import encode, photo, plain
from tests.running import Service

_DEADLINE_S = 20.0
_RED = decode(plain("red"), ImageSpec(SIDE_PX)).tobytes()
_SHAPE = (SIDE_PX, SIDE_PX, 3)


@pytest.fixture(scope="module")
def channel(service: Service) -> Iterator[grpc.Channel]:
    """To the shared service."""
    with grpc.insecure_channel(service.grpc) as opened:
        yield opened


def _call(channel: grpc.Channel, method: str, request: Any, response: Any, timeout: float = _DEADLINE_S) -> Any:
    path = f"/inference.GRPCInferenceService/{method}"
    return channel.unary_unary(path, type(request).SerializeToString, response.FromString)(request, timeout=timeout)


def _infer(channel: grpc.Channel, request: oip.ModelInferRequest, timeout: float = _DEADLINE_S) -> Any:
    return _call(channel, "ModelInfer", request, oip.ModelInferResponse, timeout)


def _ask(
    name: str = "images",
    datatype: str = "UINT8",
    shape: tuple[int, ...] = (1, *_SHAPE),
    raw: bytes | None = None,
    **contents: object,
) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="pets")
    request.inputs.add(name=name, datatype=datatype, shape=shape, contents=contents)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


def _files(*images: bytes) -> oip.ModelInferRequest:
    raw = b"".join(struct.pack("<I", len(image)) + image for image in images)
    return _ask("image_bytes", "BYTES", (len(images),), raw)


def _with(request: oip.ModelInferRequest, **fields: object) -> oip.ModelInferRequest:
    request.MergeFrom(oip.ModelInferRequest(**fields))
    return request


def test_contents_of_every_type(service: Service, channel: grpc.Channel) -> None:
    """Numbers and files as typed contents: the answer is typed, too, and the same as over HTTP."""
    image = encode(photo(3))
    pixels = decode(image, ImageSpec(SIDE_PX)).tobytes()
    (result,) = service.classify(image).json["results"]
    scores = {one["label"]: one["score"] for one in result["top"]}
    for request in (
        _ask(uint_contents=list(pixels)),
        _ask(datatype="FP32", fp32_contents=[float(value) for value in pixels]),
        _ask("image_bytes", "BYTES", (1,), bytes_contents=[image]),
    ):
        answer = _infer(channel, request)
        assert [tuple(output.shape) for output in answer.outputs] == [(1, 4), (1, 4)]
        assert not answer.raw_output_contents
        found = list(answer.outputs[0].contents.fp32_contents)
        assert found == pytest.approx([scores[name] for name in CLASSES], abs=1e-5)
        assert list(answer.outputs[1].contents.bytes_contents) == [name.encode() for name in CLASSES]


@pytest.mark.parametrize("version", ["", "1", "stable"])
def test_a_version_may_be_a_number_or_a_label(channel: grpc.Channel, version: str) -> None:
    """The protocol's version is text, so a label is one, too."""
    assert _call(
        channel, "ModelReady", oip.ModelReadyRequest(name="pets", version=version), oip.ModelReadyResponse
    ).ready
    assert _infer(channel, _with(_files(plain("red")), model_version=version)).model_version == "1"


def test_several_images_and_one_output(channel: grpc.Channel) -> None:
    """Only what was asked for, raw as the request was."""
    answer = _infer(channel, _with(_files(plain("red"), plain("blue")), outputs=[{"name": "scores"}], id="abc"))
    assert (answer.id, [output.name for output in answer.outputs]) == ("abc", ["scores"])
    scores = struct.unpack("<8f", answer.raw_output_contents[0])
    assert [scores[:4].index(max(scores[:4])), scores[4:].index(max(scores[4:]))] == [0, 2]


_WRONG: dict[str, tuple[Callable[[], oip.ModelInferRequest], str, str]] = {
    "no model": (oip.ModelInferRequest, "NOT_FOUND", "Request for unknown model: '' is not found"),
    "unknown version": (
        lambda: _with(_ask(raw=_RED), model_version="7"),
        "NOT_FOUND",
        "Request for unknown model: 'pets' version 7 is not found",
    ),
    "unknown label": (lambda: _with(_ask(raw=_RED), model_version="best"), "NOT_FOUND", "version best is not found"),
    "a giant version": (lambda: _with(_ask(raw=_RED), model_version="9" * 99), "NOT_FOUND", "is not found"),
    "no input": (
        lambda: oip.ModelInferRequest(model_name="pets"),
        "INVALID_ARGUMENT",
        "but got 0 inputs for model 'pets'",
    ),
    "two inputs": (lambda: _with(_ask(raw=_RED), inputs=[{"name": "x"}]), "INVALID_ARGUMENT", "but got 2 inputs"),
    "another input": (
        lambda: _ask("x", raw=_RED),
        "INVALID_ARGUMENT",
        "unexpected inference input 'x' for model 'pets'",
    ),
    "another output": (
        lambda: _with(_ask(raw=_RED), outputs=[{"name": "logits"}]),
        "INVALID_ARGUMENT",
        "unexpected inference output 'logits' for model 'pets'",
    ),
    "classification of none": (
        lambda: _with(
            _ask(raw=_RED), outputs=[{"name": "scores", "parameters": {"classification": {"int64_param": 0}}}]
        ),
        "INVALID_ARGUMENT",
        "expected classification to be 1 or larger, got 0",
    ),
    "wrong type": (
        lambda: _ask(datatype="INT64", raw=_RED),
        "INVALID_ARGUMENT",
        "inference input 'images' data-type is 'INT64', but model 'pets' expects 'UINT8 or FP32'",
    ),
    "wrong shape": (
        lambda: _ask(shape=(1, 64, 64, 3), raw=_RED),
        "INVALID_ARGUMENT",
        "unexpected shape for input 'images' for model 'pets'. Expected [-1,32,32,3], got [1,64,64,3]",
    ),
    "no shape": (lambda: _ask(shape=(), raw=_RED), "INVALID_ARGUMENT", "Expected [-1,32,32,3], got []"),
    "giant": (
        lambda: _ask(shape=(1 << 40, *_SHAPE), raw=_RED),
        "INVALID_ARGUMENT",
        "expected 1 to 20 images in a request, got 1099511627776",
    ),
    "negative": (
        lambda: _ask(shape=(-1, *_SHAPE), raw=_RED),
        "INVALID_ARGUMENT",
        "1 to 20 images in a request, got -1",
    ),
    "too few bytes": (
        lambda: _ask(raw=_RED[:-1]),
        "INVALID_ARGUMENT",
        f"unexpected total byte size {len(_RED) - 1} for input 'images', expecting {len(_RED)}",
    ),
    "no contents": (_ask, "INVALID_ARGUMENT", "unexpected total byte size 0 for input 'images'"),
    "a number that is no byte": (
        lambda: _ask(uint_contents=[256] * len(_RED)),
        "INVALID_ARGUMENT",
        "expected integers of 0 to 255",
    ),
    "a float that is no grey level": (
        lambda: _ask(datatype="FP32", fp32_contents=[-1.0] * len(_RED)),
        "INVALID_ARGUMENT",
        "expected values of 0 to 255, got -1 to -1",
    ),
    "half a length": (
        lambda: _ask("image_bytes", "BYTES", (1,), b"ab"),
        "INVALID_ARGUMENT",
        "incomplete string length indicator for inference input 'image_bytes', expecting 4 bytes but only 2",
    ),
    "half a file": (
        lambda: _ask("image_bytes", "BYTES", (1,), b"\xff\xff\xff\xffab"),
        "INVALID_ARGUMENT",
        "expecting string of length 4294967295 but only 2 bytes available",
    ),
    "fewer files than the shape says": (
        lambda: _with(_files(plain("red")), inputs=[]) and _ask("image_bytes", "BYTES", (2,), b"\x01\0\0\0a"),
        "INVALID_ARGUMENT",
        "expected 2 strings for inference input 'image_bytes', got 1",
    ),
    "a file that is none": (
        lambda: _files(plain("red"), b"text"),
        "INVALID_ARGUMENT",
        "image 1: expected a JPEG, PNG, WEBP, GIF, TIFF or BMP file",
    ),
    "shared memory": (
        lambda: _with(
            oip.ModelInferRequest(model_name="pets"),
            inputs=[{"name": "images", "parameters": {"shared_memory_region": {"string_param": "a"}}}],
        ),
        "INVALID_ARGUMENT",
        "shared memory is not supported",
    ),
    "two raw inputs": (
        lambda: _with(_ask(raw=_RED), raw_input_contents=[_RED]),
        "INVALID_ARGUMENT",
        "expected 1 raw input, got 2",
    ),
}


@pytest.mark.parametrize("case", _WRONG)
def test_a_wrong_infer_gets_triton_s_error(service: Service, channel: grpc.Channel, case: str) -> None:
    """Its status and, where it has words for it, its words; the processes go on."""
    request, status, says = _WRONG[case]
    fronts = service.fronts()
    with pytest.raises(grpc.RpcError) as refused:
        _infer(channel, request())
    assert refused.value.code() is grpc.StatusCode[status], refused.value.details()
    assert says in refused.value.details()
    assert service.fronts() == fronts
    assert _infer(channel, _ask(raw=_RED)).model_name == "pets"


def test_its_own_timeout_is_kept(channel: grpc.Channel) -> None:
    """A microsecond; front or engine, whoever notices first says so."""
    with pytest.raises(grpc.RpcError) as late:
        _infer(channel, _with(_ask(raw=_RED), parameters={"timeout": {"int64_param": 1}}))
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert late.value.details().startswith(("no answer within 1e-06 s", "the deadline passed in the queue"))


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata"])
def test_an_unknown_model_is_not_found(channel: grpc.Channel, method: str) -> None:
    """Ready or not is a question about a model that there is."""
    with pytest.raises(grpc.RpcError) as refused:
        _call(channel, method, oip.ModelReadyRequest(name="cats"), oip.ModelReadyResponse)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert refused.value.details() == "Request for unknown model: 'cats' is not found"
