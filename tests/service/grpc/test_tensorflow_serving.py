"""TensorFlow Serving's gRPC interface: its own stubs get the same answers, and wrong requests get its errors.

The stubs run once, in a process of their own. Wrong requests are written with our messages, whose bytes are the same.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos import tensorflow_serving_pb2 as tfs
from service.image import ImageSpec, decode
from tests.conftest import CLASSES, SIDE_PX
from tests.pictures import encode, photo, plain
from tests.running import LEAKS, Service

_ROOT = Path(__file__).resolve().parents[3]
_DEADLINE_S = 20.0
_IMAGE_BYTES = SIDE_PX * SIDE_PX * 3
_RED = decode(plain("red"), ImageSpec(SIDE_PX)).tobytes()


@pytest.fixture(scope="module")
def channel(service: Service) -> Iterator[grpc.Channel]:
    """To the shared service."""
    with grpc.insecure_channel(service.grpc) as opened:
        yield opened


@pytest.fixture
def unharmed(service: Service, channel: grpc.Channel) -> Iterator[None]:
    """After the test the same processes are alive and a good tensor is answered."""
    before = service.engines(), service.fronts()
    yield
    assert (service.engines(), service.fronts()) == before
    assert len(_predict(channel, _pixels(_RED)).outputs["scores"].float_val) == len(CLASSES)


def _call(channel: grpc.Channel, method: str, request: Any, response: Any, timeout: float = _DEADLINE_S) -> Any:
    path = f"/tensorflow.serving.{method}"
    return channel.unary_unary(path, type(request).SerializeToString, response.FromString)(request, timeout=timeout)


def _predict(channel: grpc.Channel, request: tfs.PredictRequest, timeout: float = _DEADLINE_S) -> tfs.PredictResponse:
    answer: tfs.PredictResponse = _call(
        channel, "PredictionService/Predict", request, tfs.PredictResponse, timeout=timeout
    )
    return answer


def _tensor(dtype: int, *shape: int, **values: object) -> tfs.TensorProto:
    tensor = tfs.TensorProto(dtype=dtype, **values)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def _ask(tensors: dict[str, tfs.TensorProto], name: str = "pets", **spec: object) -> tfs.PredictRequest:
    request = tfs.PredictRequest(model_spec=tfs.ModelSpec(name=name, **spec))
    for tensor, value in tensors.items():
        request.inputs[tensor].CopyFrom(value)
    return request


def _pixels(content: bytes, count: int = 1, **spec: object) -> tfs.PredictRequest:
    return _ask({"images": _tensor(tfs.DT_UINT8, count, SIDE_PX, SIDE_PX, 3, tensor_content=content)}, **spec)


def _files(*images: bytes, **spec: object) -> tfs.PredictRequest:
    tensor = _tensor(tfs.DT_STRING, len(images), string_val=images)
    return _ask({"image_bytes": tensor}, signature_name="serving_bytes", **spec)


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """As many as one request may hold."""
    return [encode(photo(seed)) for seed in range(20)]


@pytest.fixture(scope="module")
def expected(service: Service, images: list[bytes]) -> list[list[float]]:
    """The scores of `images` over HTTP, in the order of the class names."""
    rows = []
    for image in images:
        (result,) = service.classify(image).json["results"]
        scores = {one["label"]: one["score"] for one in result["top"]}
        rows.append([scores[name] for name in CLASSES])
    return rows


@pytest.fixture(scope="module")
def seen(service: Service, images: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What TensorFlow Serving's stubs got."""
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number}.jpg" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(image)
    command = [sys.executable, "-m", "tests.clients.tensorflow_serving_api", service.grpc, *map(str, paths)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("way", ["pixels", "floats", "files"])
def test_predict_gives_the_scores_of_the_one_data_plane(seen: Any, expected: list[list[float]], way: str) -> None:
    """Tensors of both types and files: [N, C] in the order of the class names, the same as over HTTP."""
    answer = seen[way]
    assert answer["spec"] == ["pets", 1, "serving_bytes" if way == "files" else "serving_default"]
    assert answer["outputs"]["scores"] == [pytest.approx(row, abs=1e-5) for row in expected]
    if way == "files":
        assert answer["outputs"].pop("classes") == [list(CLASSES)] * len(expected)
    assert answer["outputs"].keys() == {"scores"}


def test_predict_of_one_image_is_a_batch_of_one(seen: Any, expected: list[list[float]]) -> None:
    """No dimension is lost."""
    assert seen["one"]["outputs"]["scores"] == [pytest.approx(expected[0], abs=1e-5)]


def test_classify_answers_with_labels(seen: Any, expected: list[list[float]]) -> None:
    """tf.Examples with image files: every class with its score."""
    for row, scores in zip(seen["classify"]["classes"], expected, strict=True):
        assert [label for label, _ in row] == list(CLASSES)
        assert [score for _, score in row] == pytest.approx(scores, abs=1e-5)


def test_metadata_is_the_signature_map(seen: Any) -> None:
    """Both signatures, with types and shapes; the same as the SavedModel's own."""
    assert seen["metadata"] == {
        "spec": ["pets", 1, ""],
        "signatures": {
            "serving_default": {"images": ["DT_UINT8", [-1, SIDE_PX, SIDE_PX, 3]], "scores": ["DT_FLOAT", [-1, 4]]},
            "serving_bytes": {
                "image_bytes": ["DT_STRING", [-1]],
                "classes": ["DT_STRING", [-1, 4]],
                "scores": ["DT_FLOAT", [-1, 4]],
            },
        },
    }


def test_the_model_service_answers(seen: Any) -> None:
    """State of the version; a reload of what is served anyway is accepted, a change wants the token."""
    assert seen["status"] == [[1, "AVAILABLE", 0]]
    assert seen["reload"] == [0, "", "PERMISSION_DENIED"]


def test_the_output_filter_chooses(channel: grpc.Channel) -> None:
    """Only what was asked for."""
    request = _files(plain("red"), plain("green"))
    request.output_filter.append("classes")
    answer = _predict(channel, request)
    assert set(answer.outputs) == {"classes"}
    assert list(answer.outputs["classes"].string_val) == [name.encode() for name in CLASSES] * 2


def test_numbers_may_come_one_by_one(channel: grpc.Channel) -> None:
    """int_val and float_val instead of tensor_content; the last number stands for those that are left out."""
    expected = list(_predict(channel, _pixels(_RED)).outputs["scores"].float_val)
    shape = (1, SIDE_PX, SIDE_PX, 3)
    for tensor in (
        _tensor(tfs.DT_UINT8, *shape, int_val=list(_RED)),
        _tensor(tfs.DT_FLOAT, *shape, float_val=[float(value) for value in _RED]),
    ):
        assert list(_predict(channel, _ask({"images": tensor})).outputs["scores"].float_val) == expected
    grey = _predict(channel, _ask({"images": _tensor(tfs.DT_UINT8, *shape, int_val=[128])}))
    assert max(grey.outputs["scores"].float_val) == grey.outputs["scores"].float_val[CLASSES.index("grey")]


_SHAPE = (SIDE_PX, SIDE_PX, 3)
_WRONG: dict[str, tuple[Callable[[], tfs.PredictRequest], str, str]] = {
    "no model": (tfs.PredictRequest, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    "unknown model": (
        lambda: _pixels(_RED, name="cats"),
        "NOT_FOUND",
        "Servable not found for request: Latest(cats)",
    ),
    "unknown version": (
        lambda: _pixels(_RED, version={"value": 7}),
        "NOT_FOUND",
        "Servable not found for request: Specific(pets, 7)",
    ),
    "negative version": (
        lambda: _pixels(_RED, version={"value": -1}),
        "NOT_FOUND",
        "Servable not found for request: Specific(pets, -1)",
    ),
    "unknown label": (
        lambda: _pixels(_RED, version_label="best"),
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: best",
    ),
    "unknown signature": (
        lambda: _pixels(_RED, signature_name="guess"),
        "FAILED_PRECONDITION",
        'Serving signature key "guess" not found.',
    ),
    "no input": (
        lambda: _ask({}),
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1 len({}) != len({images}). Sent extra: {}. Missing but required: "
        "{images}.",
    ),
    "two inputs": (
        lambda: _ask({"images": _tensor(tfs.DT_UINT8, 1, *_SHAPE), "mask": _tensor(tfs.DT_UINT8, 1)}),
        "INVALID_ARGUMENT",
        "input size does not match signature: 2!=1 len({images,mask}) != len({images}). Sent extra: {mask}. "
        "Missing but required: {}.",
    ),
    "another input": (
        lambda: _ask({"pictures": _tensor(tfs.DT_UINT8, 1, *_SHAPE)}),
        "INVALID_ARGUMENT",
        "input tensor alias not found in signature: pictures. Inputs expected to be in the set {images}.",
    ),
    "wrong dtype": (
        lambda: _ask({"images": _tensor(tfs.DT_INT64, 1, *_SHAPE)}),
        "INVALID_ARGUMENT",
        "Expects arg[0] to be uint8 or float but int64 is provided",
    ),
    "unknown dtype": (
        lambda: _ask({"images": _tensor(99, 1, *_SHAPE)}),
        "INVALID_ARGUMENT",
        "Expects arg[0] to be uint8 or float but type 99 is provided",
    ),
    "numbers for files": (
        lambda: _ask({"image_bytes": _tensor(tfs.DT_UINT8, 1)}, signature_name="serving_bytes"),
        "INVALID_ARGUMENT",
        "Expects arg[0] to be string but uint8 is provided",
    ),
    "another side": (
        lambda: _ask({"images": _tensor(tfs.DT_UINT8, 1, 64, 64, 3, tensor_content=bytes(64 * 64 * 3))}),
        "INVALID_ARGUMENT",
        "expected a tensor of shape [-1,32,32,3], got [1,64,64,3]",
    ),
    "no batch dimension": (
        lambda: _ask({"images": _tensor(tfs.DT_UINT8, *_SHAPE, tensor_content=_RED)}),
        "INVALID_ARGUMENT",
        "expected a tensor of shape [-1,32,32,3], got [32,32,3]",
    ),
    "very many dimensions": (
        lambda: _ask({"images": _tensor(tfs.DT_UINT8, *[1] * 1000)}),
        "INVALID_ARGUMENT",
        "got [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,...]",
    ),
    "unknown rank": (
        lambda: _ask({"images": tfs.TensorProto(dtype=tfs.DT_UINT8, tensor_shape={"unknown_rank": True})}),
        "INVALID_ARGUMENT",
        "expected a tensor of shape",
    ),
    "giant": (
        lambda: _ask({"images": _tensor(tfs.DT_UINT8, 1 << 40, *_SHAPE, int_val=[1])}),
        "INVALID_ARGUMENT",
        "expected 1 to 20 images in a request, got 1099511627776",
    ),
    "negative size": (
        lambda: _ask({"images": _tensor(tfs.DT_UINT8, -1, *_SHAPE, int_val=[1])}),
        "INVALID_ARGUMENT",
        "expected 1 to 20 images in a request, got -1",
    ),
    "no image": (
        lambda: _ask({"images": _tensor(tfs.DT_UINT8, 0, *_SHAPE)}),
        "INVALID_ARGUMENT",
        "expected 1 to 20 images in a request, got 0",
    ),
    "too few bytes": (
        lambda: _pixels(_RED[:-1]),
        "INVALID_ARGUMENT",
        f"tensor parsing error: images: expected {_IMAGE_BYTES} uint8 values, got {_IMAGE_BYTES - 1} bytes",
    ),
    "too many bytes": (
        lambda: _pixels(_RED + b"x"),
        "INVALID_ARGUMENT",
        f"tensor parsing error: images: expected {_IMAGE_BYTES} uint8 values, got {_IMAGE_BYTES + 1} bytes",
    ),
    "no values": (
        lambda: _pixels(b""),
        "INVALID_ARGUMENT",
        f"tensor parsing error: images: expected {_IMAGE_BYTES} uint8 values, got 0 bytes",
    ),
    "integers that are no bytes": (
        lambda: _ask({"images": _tensor(tfs.DT_UINT8, 1, *_SHAPE, int_val=[256] * _IMAGE_BYTES)}),
        "INVALID_ARGUMENT",
        "tensor parsing error: expected integers of 0 to 255",
    ),
    "floats above 255": (
        lambda: _ask({"images": _tensor(tfs.DT_FLOAT, 1, *_SHAPE, float_val=[0.0, 255.5])}),
        "INVALID_ARGUMENT",
        "expected values of 0 to 255, got 0 to 255.5",
    ),
    "floats that are no numbers": (
        lambda: _ask({"images": _tensor(tfs.DT_FLOAT, 1, *_SHAPE, float_val=[float("nan")])}),
        "INVALID_ARGUMENT",
        "expected values of 0 to 255, got nan to nan",
    ),
    "fewer files than the shape says": (
        lambda: _ask({"image_bytes": _tensor(tfs.DT_STRING, 2, string_val=[b"x"])}, signature_name="serving_bytes"),
        "INVALID_ARGUMENT",
        "tensor parsing error: image_bytes: expected 2 values of string, got 1",
    ),
    "a file that is none": (
        lambda: _files(plain("red"), b"text"),
        "INVALID_ARGUMENT",
        "image 1: expected a JPEG, PNG, WEBP, GIF, TIFF or BMP file, got 4 bytes",
    ),
    "an empty file": (lambda: _files(b""), "INVALID_ARGUMENT", "expected an image file, got 0 bytes"),
    "too large a file": (
        lambda: _files(b"\xff" * 500_001),
        "INVALID_ARGUMENT",
        "expected at most 500000 bytes, got 500001",
    ),
}


@pytest.mark.parametrize("case", _WRONG)
@pytest.mark.usefixtures("unharmed")
def test_a_wrong_predict_gets_tensorflow_serving_s_error(channel: grpc.Channel, case: str) -> None:
    """Its status and, where it has words for it, its words; the processes go on."""
    request, status, says = _WRONG[case]
    _refused(lambda: _predict(channel, request()), status, says)


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        (["logits"], "output tensor alias not found in signature: logits Outputs expected to be in the set {scores}."),
        (["scores", "scores"], "duplicate output tensor alias: scores"),
    ],
)
def test_a_wrong_output_filter_is_refused(channel: grpc.Channel, outputs: list[str], says: str) -> None:
    """An output that the signature has not, or one twice."""
    request = _pixels(_RED)
    request.output_filter.extend(outputs)
    _refused(lambda: _predict(channel, request), "INVALID_ARGUMENT", says)


def _example(**features: tfs.Feature) -> tfs.Example:
    return tfs.Example(features={"feature": {name.replace("__", "/"): one for name, one in features.items()}})


def _bytes(*values: bytes) -> tfs.Feature:
    return tfs.Feature(bytes_list={"value": values})


@pytest.mark.parametrize(
    ("examples", "spec", "status", "says"),
    [
        ([], {}, "INVALID_ARGUMENT", "Input is empty."),
        ([_example()], {}, "INVALID_ARGUMENT", "Feature: image/encoded or image_bytes (data type: string) is required"),
        (
            [_example(image_bytes=tfs.Feature(int64_list={"value": [1]}))],
            {},
            "INVALID_ARGUMENT",
            "Key: image_bytes, Index: 0. Data types don't match. Expected type: string",
        ),
        (
            [_example(image__encoded=_bytes(b"a", b"b"))],
            {},
            "INVALID_ARGUMENT",
            "Number of string values != expected. Values size: 2 but output shape: []",
        ),
        ([_example(image_bytes=_bytes(b"text"))], {}, "INVALID_ARGUMENT", "expected a JPEG"),
        ([_example(image_bytes=_bytes(b"a"))], {"name": "cats"}, "NOT_FOUND", "Latest(cats)"),
        (
            [_example(image_bytes=_bytes(b"a"))],
            {"signature_name": "guess"},
            "INVALID_ARGUMENT",
            "No signature was found with the name: guess",
        ),
    ],
    ids=["no example", "no feature", "a number", "two values", "no image", "unknown model", "unknown signature"],
)
def test_a_wrong_classify_is_refused(
    channel: grpc.Channel, *, examples: list[tfs.Example], spec: dict[str, str], status: str, says: str
) -> None:
    """As TensorFlow's own parser of examples puts it."""
    request = tfs.ClassificationRequest(
        model_spec={"name": "pets"} | spec, input={"example_list": {"examples": examples}}
    )
    _refused(lambda: _call(channel, "PredictionService/Classify", request, tfs.ClassificationResponse), status, says)


def test_a_context_is_shared_by_all_examples(channel: grpc.Channel) -> None:
    """What an example has of its own goes before what it shares."""
    request = tfs.ClassificationRequest(model_spec={"name": "pets"})
    request.input.example_list_with_context.context.CopyFrom(_example(image_bytes=_bytes(plain("red"))))
    request.input.example_list_with_context.examples.extend([_example(), _example(image_bytes=_bytes(plain("blue")))])
    answer = _call(channel, "PredictionService/Classify", request, tfs.ClassificationResponse)
    best = [max(row.classes, key=lambda one: one.score).label for row in answer.result.classifications]
    assert best == ["red", "blue"]


@pytest.mark.parametrize(
    ("method", "request_message", "status", "says"),
    [
        ("GetModelMetadata", tfs.GetModelMetadataRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (
            "GetModelMetadata",
            tfs.GetModelMetadataRequest(model_spec={"name": "pets"}),
            "INVALID_ARGUMENT",
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            "GetModelMetadata",
            tfs.GetModelMetadataRequest(model_spec={"name": "pets"}, metadata_field=["graph"]),
            "INVALID_ARGUMENT",
            "Metadata field graph is not supported",
        ),
        (
            "GetModelMetadata",
            tfs.GetModelMetadataRequest(model_spec={"name": "cats"}, metadata_field=["signature_def"]),
            "NOT_FOUND",
            "Servable not found for request: Latest(cats)",
        ),
        ("GetModelStatus", tfs.GetModelStatusRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (
            "GetModelStatus",
            tfs.GetModelStatusRequest(model_spec={"name": "cats"}),
            "NOT_FOUND",
            "Could not find any versions of model cats",
        ),
        (
            "GetModelStatus",
            tfs.GetModelStatusRequest(model_spec={"name": "pets", "version": {"value": 7}}),
            "NOT_FOUND",
            "Could not find version 7 of model pets",
        ),
        ("HandleReloadConfigRequest", tfs.ReloadConfigRequest(), "INVALID_ARGUMENT", "Only ModelConfigList"),
        (
            "GetModelStatus",
            tfs.GetModelStatusRequest(model_spec={"name": "pets", "version": {"value": 0}}),
            "NOT_FOUND",
            "Could not find version 0 of model pets",
        ),
        (
            "HandleReloadConfigRequest",
            tfs.ReloadConfigRequest(config={"model_config_list": {"config": [{"name": "cats"}]}}),
            "NOT_FOUND",
            "expected a model of the models directory, got 'cats'",
        ),
    ],
)
def test_other_wrong_requests_are_refused(
    channel: grpc.Channel, *, method: str, request_message: Any, status: str, says: str
) -> None:
    """Metadata, status, reload."""
    service = "PredictionService" if method == "GetModelMetadata" else "ModelService"
    _refused(lambda: _call(channel, f"{service}/{method}", request_message, tfs.PredictResponse), status, says)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(
    "message",
    [b"\xff\xff garbage", b"\n\x04\n\x02\xff\xfe", b"\x12\xff\xff\xff\x7f"],
    ids=["garbage", "a name that is not UTF-8", "a length beyond the end"],
)
def test_bytes_that_are_no_message_are_refused(channel: grpc.Channel, message: bytes) -> None:
    """They end that call alone."""
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict", None, None)
    with pytest.raises(grpc.RpcError) as refused:
        call(message, timeout=_DEADLINE_S)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith("expected the message that this method takes, got ")


def test_a_method_that_is_not_spoken_is_unimplemented(channel: grpc.Channel) -> None:
    """Regress has no meaning for a classifier."""
    _refused(
        lambda: _call(channel, "PredictionService/Regress", tfs.PredictRequest(), tfs.PredictResponse),
        "UNIMPLEMENTED",
        "",
    )


def test_the_client_s_deadline_holds(channel: grpc.Channel) -> None:
    """A deadline that has passed before anything could be done."""
    _refused(lambda: _predict(channel, _pixels(_RED * 20, 20), timeout=0.0001), "DEADLINE_EXCEEDED", "")


def _refused(call: Callable[[], object], status: str, says: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call()
    assert refused.value.code() is grpc.StatusCode[status], refused.value.details()
    assert says in refused.value.details()
    for leak in LEAKS:
        assert leak not in refused.value.details()
