"""The Open Inference Protocol over HTTP: JSON, binary tensors, health, metadata, and errors."""

import base64
import json
from typing import Any

import pytest

from service.image import ImageSpec, decode
from tests.conftest import CLASSES, SIDE_PX
from tests.pictures import encode, photo, plain
from tests.running import HttpAnswer, Service

_INFER = "/v2/models/pets/infer"
_RED = decode(plain("red"), ImageSpec(SIDE_PX))
_SHAPE = [1, SIDE_PX, SIDE_PX, 3]


def _post(
    service: Service, document: object, tail: bytes = b"", length: str | None = None, path: str = _INFER
) -> HttpAnswer:
    head = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": length or str(len(head))} if tail or length else {}
    return service.request("POST", path, head + tail, headers)


def _pixels(**fields: object) -> dict[str, Any]:
    return {"inputs": [{"name": "images", "datatype": "UINT8", "shape": _SHAPE} | fields]}


def _b64(image: bytes) -> str:
    return base64.b64encode(image).decode()


def test_json_in_every_form(service: Service) -> None:
    """Pixels nested or flat, floats, files in base64: the scores of /classify."""
    image = encode(photo(3))
    pixels = decode(image, ImageSpec(SIDE_PX))
    (result,) = service.classify(image).json["results"]
    scores = {one["label"]: one["score"] for one in result["top"]}
    expected = pytest.approx([scores[name] for name in CLASSES], abs=1e-5)
    for document in (
        _pixels(data=pixels[None].tolist()),
        _pixels(data=pixels.ravel().tolist()),
        _pixels(datatype="FP32", data=pixels.astype(float).ravel().tolist()),
        {"inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [_b64(image)]}]},
    ):
        answer = _post(service, document | {"id": "abc"})
        assert answer.status == 200, answer.body
        assert answer.json == {
            "model_name": "pets",
            "model_version": "1",
            "id": "abc",
            "outputs": [
                {"name": "scores", "datatype": "FP32", "shape": [1, 4], "data": expected},
                {"name": "classes", "datatype": "BYTES", "shape": [1, 4], "data": list(CLASSES)},
            ],
        }


def test_binary_tensors(service: Service) -> None:
    """In and out, with the length of the JSON in a header; one output may be binary and another not."""
    raw = _RED.tobytes()
    document = _pixels(parameters={"binary_data_size": len(raw)})
    document["outputs"] = [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "classes"}]
    answer = _post(service, document, raw)
    length = int(answer.headers["Inference-Header-Content-Length"])
    scores, classes = json.loads(answer.body[:length])["outputs"]
    assert (scores["parameters"], len(answer.body) - length) == ({"binary_data_size": 16}, 16)
    assert classes["data"] == list(CLASSES)


def test_health_and_metadata(service: Service) -> None:
    """Live, ready, and who this is."""
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/pets/ready", "/v2/models/pets/versions/1/ready"):
        assert service.get(path).status == 200, path
    assert service.get("/v2").json["name"] == "graft"
    model = service.get("/v2/models/pets/versions/stable").json
    assert (model["name"], model["versions"], model["inputs"][0]["shape"]) == ("pets", ["1"], [-1, SIDE_PX, SIDE_PX, 3])


_WRONG: list[tuple[str, dict[str, Any], int, str]] = [
    ("not json", {"document": b"{"}, 400, "failed to parse the request JSON buffer"),
    ("not UTF-8", {"document": b'{"id": "\xff"}'}, 400, "failed to parse the request JSON buffer"),
    ("very deep", {"document": b"[" * 100_000}, 400, "failed to parse the request JSON buffer"),
    ("a list", {"document": []}, 400, "expected an object"),
    ("inputs a number", {"document": {"inputs": 1}}, 400, "expected inputs to be a list of objects"),
    ("no input", {"document": {}}, 400, "but got 0 inputs for model 'pets'"),
    ("a name that is none", {"document": {"inputs": [{"name": 1}]}}, 400, "expected name to be a string"),
    ("a shape that is none", {"document": _pixels(shape="all", data=[])}, 400, "to be a list of integers"),
    ("a giant shape", {"document": _pixels(shape=[10**30], data=[])}, 400, "to be a list of integers"),
    ("no data", {"document": _pixels()}, 400, "expected data of input 'images' to be a list"),
    ("words", {"document": _pixels(data=["red"])}, 400, "expected data of input 'images' to be numbers"),
    ("256", {"document": _pixels(data=[256])}, 400, "expected integers of 0 to 255"),
    ("too few numbers", {"document": _pixels(data=[1, 2])}, 400, "unexpected total byte size 2 for input 'images'"),
    ("uneven lists", {"document": _pixels(data=[[1], [2, 3]])}, 400, "Encountered list at unexpected size: 2"),
    ("an unknown type", {"document": _pixels(datatype="FP64", data=[1])}, 400, "data-type is 'FP64', but model 'pets'"),
    (
        "not base64",
        {"document": {"inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": ["!"]}]}},
        400,
        "to be strings in base64",
    ),
    (
        "more bytes than there are",
        {"document": _pixels(parameters={"binary_data_size": 9}), "tail": b"12345678"},
        400,
        "expected binary_data_size of input 'images' to be 0 to 8",
    ),
    (
        "bytes that belong to nobody",
        {"document": _pixels(parameters={"binary_data_size": 1}), "tail": b"12"},
        400,
        "unexpected additional input data: 1 bytes",
    ),
    ("a header length that is none", {"document": {}, "length": "-1"}, 400, "expected Inference-Header-Content-Length"),
    ("a header length beyond the end", {"document": {}, "length": "999"}, 400, "of 0 to 2, got '999'"),
    (
        "unknown model",
        {"document": {}, "path": "/v2/models/cats/infer"},
        404,
        "Request for unknown model: 'cats' is not found",
    ),
    ("unknown version", {"document": {}, "path": "/v2/models/pets/versions/7/infer"}, 404, "version 7 is not found"),
    ("unknown path", {"document": {}, "path": "/v2/guess"}, 404, "The requested URL was not found"),
    ("too large", {"document": b" " * 2_000_001}, 413, "expected a body of at most 2000000 bytes"),
]


@pytest.mark.parametrize(("sent", "status", "says"), [one[1:] for one in _WRONG], ids=[one[0] for one in _WRONG])
def test_a_wrong_request_is_refused(service: Service, sent: dict[str, Any], status: int, says: str) -> None:
    """With the protocol's shape of an error; the process goes on."""
    fronts = service.fronts()
    answer = _post(service, **sent)
    assert (answer.status, answer.json.keys()) == (status, {"error"}), answer.body
    assert says in answer.json["error"]
    assert service.fronts() == fronts
