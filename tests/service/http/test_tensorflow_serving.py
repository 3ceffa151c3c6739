"""TensorFlow Serving's REST interface: both formats of predict, classify, status, metadata, and its errors."""

import base64
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from service.image import ImageSpec, decode
from tests.conftest import CLASSES, SIDE_PX
from tests.pictures import encode, photo, plain
from tests.running import LEAKS, HttpAnswer, Service

_PREDICT = "/v1/models/pets:predict"
_CLASSIFY = "/v1/models/pets:classify"


def _post(service: Service, path: str, document: object) -> HttpAnswer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return service.request("POST", path, body, {"Content-Type": "application/json"})


def _b64(image: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(image).decode()}


def _pixels(image: bytes) -> list[Any]:
    listed: list[Any] = decode(image, ImageSpec(SIDE_PX)).tolist()
    return listed


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """A few."""
    return [encode(photo(seed)) for seed in range(3)]


@pytest.fixture(scope="module")
def expected(service: Service, images: list[bytes]) -> list[Any]:
    """Their scores by /classify, in the order of the class names."""
    tops = [service.classify(image).json["results"][0]["top"] for image in images]
    rows = [{one["label"]: one["score"] for one in top} for top in tops]
    return [pytest.approx([row[name] for name in CLASSES], abs=1e-5) for row in rows]


@pytest.mark.parametrize(
    "path", [_PREDICT, "/v1/models/pets/versions/1:predict", "/v1/models/pets/labels/stable:predict"]
)
def test_pixels_by_row(service: Service, images: list[bytes], expected: list[Any], path: str) -> None:
    """A list of nested lists: one list of scores each."""
    answer = _post(service, path, {"instances": [_pixels(image) for image in images]})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json == {"predictions": expected}


def test_pixels_in_other_forms(service: Service, images: list[bytes], expected: list[Any]) -> None:
    """By name, by column, by column and name, and as floats."""
    pixels = [_pixels(image) for image in images]
    named = _post(service, _PREDICT, {"instances": [{"images": one} for one in pixels]})
    assert named.json == {"predictions": expected}
    for inputs in (pixels, {"images": pixels}):
        assert _post(service, _PREDICT, {"inputs": inputs}).json == {"outputs": expected}
    floats = [
        [[[value + 0.25 if value < 255 else 255.0 for value in pixel] for pixel in row] for row in one]
        for one in pixels
    ]
    assert _post(service, _PREDICT, {"signature_name": "serving_default", "instances": floats}).json == {
        "predictions": expected
    }


def test_files_by_row(service: Service, images: list[bytes], expected: list[Any]) -> None:
    """Base64 objects, with the input's name or without: one object with both outputs each."""
    rows = [{"classes": list(CLASSES), "scores": scores} for scores in expected]
    for instances in ([_b64(image) for image in images], [{"image_bytes": _b64(image)} for image in images]):
        answer = _post(service, _PREDICT, {"signature_name": "serving_bytes", "instances": instances})
        assert answer.json == {"predictions": rows}


def test_files_by_column(service: Service, images: list[bytes], expected: list[Any]) -> None:
    """One object of columns."""
    files = [_b64(image) for image in images]
    for inputs in (files, {"image_bytes": files}):
        answer = _post(service, _PREDICT, {"signature_name": "serving_bytes", "inputs": inputs})
        assert answer.json == {"outputs": {"classes": [list(CLASSES)] * 3, "scores": expected}}


def test_classify(service: Service, images: list[bytes], expected: list[Any]) -> None:
    """Examples with an image file: pairs of label and score; a context is shared."""
    answer = _post(service, _CLASSIFY, {"examples": [{"image/encoded": _b64(image)} for image in images]})
    assert [[label for label, _ in row] for row in answer.json["results"]] == [list(CLASSES)] * 3
    assert [[score for _, score in row] for row in answer.json["results"]] == expected
    shared = {"context": {"image_bytes": _b64(images[0]), "weight": 0.5}, "examples": [{"id": [1, 2]}, {}]}
    answer = _post(service, _CLASSIFY, shared)
    assert [[score for _, score in row] for row in answer.json["results"]] == [expected[0]] * 2


@pytest.mark.parametrize("path", ["", "/versions/1", "/labels/stable"])
def test_status(service: Service, path: str) -> None:
    """As TensorFlow Serving prints its message."""
    answer = service.get(f"/v1/models/pets{path}")
    assert answer.status == 200
    assert answer.json == {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


def test_metadata(service: Service) -> None:
    """The signature map."""
    answer = service.get("/v1/models/pets/metadata").json
    assert answer["model_spec"] == {"name": "pets", "version": "1", "signature_name": ""}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert signatures.keys() == {"serving_default", "serving_bytes"}
    images = signatures["serving_default"]["inputs"]["images"]
    assert images["dtype"] == "DT_UINT8"
    assert [dim["size"] for dim in images["tensor_shape"]["dim"]] == ["-1", "32", "32", "3"]
    assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"


_RED = _pixels(plain("red"))
_WRONG: list[tuple[str, str, object, int, str]] = [
    ("not json", _PREDICT, b"{", 400, "JSON Parse error: "),
    ("no body", _PREDICT, b"", 400, "JSON Parse error: The document is empty"),
    ("not UTF-8", _PREDICT, b'{"instances": ["\xff\xfe"]}', 400, "JSON Parse error: "),
    ("very deep", _PREDICT, b"[" * 100_000, 400, "JSON Parse error: "),
    ("a list", _PREDICT, [1], 400, "JSON Value: list Is not object"),
    ("no values", _PREDICT, {}, 400, "Missing 'inputs' or 'instances' key"),
    ("both formats", _PREDICT, {"instances": [1], "inputs": [1]}, 400, "expecting only one of 'inputs' or 'instances'"),
    (
        "no instance",
        _PREDICT,
        {"instances": []},
        400,
        "Expecting 'instances' to be a list/array with at least one value",
    ),
    ("instances in an object", _PREDICT, {"instances": {"a": 1}}, 400, "Expecting 'instances' to be a list/array"),
    ("another input", _PREDICT, {"instances": [{"x": 1}]}, 400, "keys must be equal to: images"),
    ("a missing column", _PREDICT, {"inputs": {"x": [1]}}, 400, "Missing named input: images in 'inputs' object."),
    ("signature's name a number", _PREDICT, {"signature_name": 1, "instances": [1]}, 400, "must be a string value"),
    (
        "unknown signature",
        _PREDICT,
        {"signature_name": "guess", "instances": [1]},
        400,
        'Serving signature name: "guess" not found in signature def',
    ),
    ("numbers too flat", _PREDICT, {"instances": [1, 2]}, 400, "expected a tensor of shape [-1,32,32,3], got [2]"),
    (
        "another side",
        _PREDICT,
        {"instances": [[[[1, 2, 3]]]]},
        400,
        "expected a tensor of shape [-1,32,32,3], got [1,1,1,3]",
    ),
    ("uneven lists", _PREDICT, {"instances": [[1, 2], [3]]}, 400, "Encountered list at unexpected size: 1 at level: 1"),
    (
        "uneven depth",
        _PREDICT,
        {"instances": [[1, 2], 3]},
        400,
        "unexpected size: a value at level: 1 expected size: 2",
    ),
    ("too deep", _PREDICT, b'{"instances": ' + b"[" * 20 + b"1" + b"]" * 20 + b"}", 400, "unexpected level: 17"),
    ("256", _PREDICT, {"instances": [[[[256, 0, 0]]]]}, 400, "expected integers of 0 to 255"),
    ("a huge number", _PREDICT, {"inputs": [10**400, 0.5]}, 400, "expected numbers of 0 to 255"),
    ("words for pixels", _PREDICT, {"instances": ["red"]}, 400, "expected numbers of 0 to 255 in nested lists"),
    ("true for pixels", _PREDICT, {"instances": [True]}, 400, "expected numbers of 0 to 255 in nested lists"),
    (
        "NaN",
        _PREDICT,
        {"instances": [[[[float("nan")] * 3] * 32] * 32]},
        400,
        "expected values of 0 to 255, got nan to nan",
    ),
    ("too many images", _PREDICT, {"instances": [_RED] * 21}, 400, "expected 1 to 20 images in a request, got 21"),
    ("very many", _PREDICT, {"instances": [[[[0]]]] * 9999}, 400, "expected 1 to 20 images in a request, got 9999"),
    (
        "very many in a column",
        _PREDICT,
        {"inputs": [[[[0]]]] * 99},
        400,
        "expected 1 to 20 images in a request, got 99",
    ),
    (
        "very many named",
        _PREDICT,
        {"instances": [{"images": 0}] * 99},
        400,
        "expected 1 to 20 images in a request, got 99",
    ),
    ("one image", _PREDICT, {"instances": [[[0] * 3] * 32] * 32}, 400, "as lists 4 deep, got 32 of lists 3 deep"),
    ("one image flat", _PREDICT, {"inputs": {"images": [0] * 999}}, 400, "as lists 4 deep, got 999 of lists 1 deep"),
    (
        "not base64",
        _PREDICT,
        {"signature_name": "serving_bytes", "instances": [{"b64": "!"}]},
        400,
        "Unable to base64 decode",
    ),
    (
        "b64 a number",
        _PREDICT,
        {"signature_name": "serving_bytes", "instances": [{"b64": 1}]},
        400,
        "not formatted correctly for base64 data",
    ),
    (
        "a number for a file",
        _PREDICT,
        {"signature_name": "serving_bytes", "instances": [1]},
        400,
        "JSON Value: 1 is not of expected type: string",
    ),
    (
        "text for a file",
        _PREDICT,
        {"signature_name": "serving_bytes", "instances": ["\ud800 text"]},
        400,
        "expected a JPEG, PNG, WEBP, GIF, TIFF or BMP file",
    ),
    (
        "one file, no list",
        _PREDICT,
        {"signature_name": "serving_bytes", "inputs": _b64(plain("red"))},
        400,
        "expected a tensor of shape [-1], got []",
    ),
    (
        "unknown model",
        "/v1/models/cats:predict",
        {"instances": [1]},
        404,
        "Servable not found for request: Latest(cats)",
    ),
    (
        "unknown version",
        "/v1/models/pets/versions/7:predict",
        {"instances": [1]},
        404,
        "Servable not found for request: Specific(pets, 7)",
    ),
    (
        "unknown label",
        "/v1/models/pets/labels/best:predict",
        {"instances": [1]},
        400,
        "Unrecognized servable version label: best",
    ),
    (
        "a giant version",
        f"/v1/models/pets/versions/{'9' * 50}:predict",
        {"instances": [1]},
        400,
        "Failed to convert version",
    ),
    ("unknown method", "/v1/models/pets:guess", {}, 400, "Malformed request: POST /v1/models/pets:guess"),
    ("no model", "/v1/models:predict", {}, 400, "Malformed request: POST /v1/models:predict"),
    ("no example", _CLASSIFY, {}, 400, "key 'examples' is expected"),
    ("very many examples", _CLASSIFY, {"examples": [{}] * 99}, 400, "expected 1 to 20 images in a request, got 99"),
    ("an example that is no object", _CLASSIFY, {"examples": [1]}, 400, "Example must be JSON object but got JSON 1"),
    ("an example without an image", _CLASSIFY, {"examples": [{"x": 1}]}, 400, "Feature: image/encoded or image_bytes"),
    ("a list in a list", _CLASSIFY, {"examples": [{"x": [[1]]}]}, 400, "has element with unexpected JSON type: list"),
    ("text for an image", _CLASSIFY, {"examples": [{"image_bytes": "a"}]}, 400, "expected a JPEG"),
]


@pytest.fixture
def unharmed(service: Service) -> Iterator[None]:
    """After the test the same processes are alive and a good image is answered."""
    before = service.engines(), service.fronts()
    yield
    assert (service.engines(), service.fronts()) == before
    assert service.classify(plain("blue")).status == 200


def _refused(answer: HttpAnswer, status: int, says: str) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json.keys() == {"error"}
    assert says in answer.json["error"]
    for leak in LEAKS:
        assert leak not in answer.json["error"]


@pytest.mark.parametrize(
    ("path", "document", "status", "says"), [one[1:] for one in _WRONG], ids=[one[0] for one in _WRONG]
)
def test_a_wrong_request_gets_tensorflow_serving_s_error(
    service: Service, *, path: str, document: object, status: int, says: str
) -> None:
    """Its status, its shape, and where it has words for it, its words."""
    _refused(_post(service, path, document), status, says)


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/v1/models/cats", 404, "Could not find any versions of model cats"),
        ("/v1/models/pets/versions/7", 404, "Could not find version 7 of model pets"),
        ("/v1/models/pets/labels/best", 400, "Unrecognized servable version label: best"),
        ("/v1/models/cats/metadata", 404, "Servable not found for request: Latest(cats)"),
        ("/v1/models/pets/versions/0", 404, "Could not find version 0 of model pets"),
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/models/metadata/metadata", 404, "Servable not found for request: Latest(metadata)"),
        ("/v1/models/pets:predict", 400, "Malformed request: GET /v1/models/pets:predict"),
        ("/v1/", 400, "Malformed request: GET /v1/"),
        ("/v1/engines", 400, "Malformed request: GET /v1/engines"),
    ],
)
def test_a_wrong_question_gets_tensorflow_serving_s_error(service: Service, path: str, status: int, says: str) -> None:
    """Status and metadata."""
    _refused(service.get(path), status, says)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "GUESS"])
def test_another_method_is_a_malformed_request(service: Service, method: str) -> None:
    """TensorFlow Serving knows no 405: a method that a path has not is to it the same as a path that there is not."""
    path = "/v1/models/pets/versions/1/metadata"
    _refused(service.request(method, path, b"{}"), 400, f"Malformed request: {method} {path}")


@pytest.mark.usefixtures("unharmed")
def test_a_body_that_is_too_large_is_refused(service: Service) -> None:
    """Before it is read."""
    _refused(_post(service, _PREDICT, b" " * 2_000_001), 413, "expected a body of at most 2000000 bytes, got 2000001")


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(
    ("length", "status"), [(b"2", b"400"), (b"-1", b"400"), (b"abc", b"400"), (b"999999999999", b"413")]
)
def test_a_wrong_content_length_harms_nobody(service: Service, length: bytes, status: bytes) -> None:
    """Too short cuts the JSON; too long is over the limit; none at all is gunicorn's to refuse."""
    host, _, port = service.http.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            b"POST /v1/models/pets:predict HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: "
            + length
            + b'\r\n\r\n{"instances": [1]}'
        )
        assert connection.recv(4096).split(b" ")[1] == status
