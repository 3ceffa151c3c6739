"""NVIDIA's tritonclient, unchanged, over HTTP and gRPC, by `make test-clients`: it wants an older protobuf."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.image import ImageSpec, decode
from tests.conftest import CLASSES, SIDE_PX
from tests.pictures import encode, photo
from tests.running import Service

_SCRIPT = Path(__file__).with_name("triton.py")
_PYTHON = os.environ.get("GRAFT_CLIENTS_PYTHON", "")
pytestmark = pytest.mark.skipif(not _PYTHON, reason="needs the clients' environment: make test-clients")


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """As many as one request may hold."""
    return [encode(photo(seed)) for seed in range(20)]


@pytest.fixture(scope="module")
def expected(service: Service, images: list[bytes]) -> list[Any]:
    """Their scores by /classify, in the order of the class names."""
    tops = [service.classify(image).json["results"][0]["top"] for image in images]
    rows = [{one["label"]: one["score"] for one in top} for top in tops]
    return [pytest.approx([row[name] for name in CLASSES], abs=1e-5) for row in rows]


@pytest.fixture(scope="module", params=["http", "grpc"])
def seen(
    request: pytest.FixtureRequest, service: Service, images: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """What the client got over one of the protocols."""
    folder = tmp_path_factory.mktemp("images")
    np.save(folder / "pixels.npy", np.stack([decode(image, ImageSpec(SIDE_PX)) for image in images]))
    paths = [folder / f"{number}.jpg" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(image)
    address = service.http.removeprefix("http://") if request.param == "http" else service.grpc
    command = [_PYTHON, str(_SCRIPT), request.param, address, str(folder / "pixels.npy"), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_live_and_ready(seen: Any) -> None:
    """Server, model and version."""
    assert (seen["live"], seen["ready"], seen["model ready"]) == (True, True, [True, True])


def test_metadata(seen: Any) -> None:
    """Of the server and of the model."""
    assert (seen["server"]["name"], seen["server"]["extensions"]) == ("graft", ["classification", "binary_tensor_data"])
    model = seen["model"]
    assert (model["name"], model["versions"], model["platform"]) == ("pets", ["1"], "graft")
    shapes = {one["name"]: (one["datatype"], one["shape"]) for one in (*model["inputs"], *model["outputs"])}
    assert shapes == {
        "images": ("UINT8", [-1, SIDE_PX, SIDE_PX, 3]),
        "image_bytes": ("BYTES", [-1]),
        "scores": ("FP32", [-1, 4]),
        "classes": ("BYTES", [-1, 4]),
    }


@pytest.mark.parametrize("way", ["pixels", "floats", "files", "column", "json"])
def test_infer_gives_the_scores_of_the_one_data_plane(seen: Any, expected: list[Any], way: str) -> None:
    """Tensors of both types and files, binary and as JSON (which only HTTP has)."""
    if way in seen:
        assert seen[way] == {"scores": expected, "classes": [list(CLASSES)] * len(expected)}


def test_classifications(seen: Any, expected: list[Any]) -> None:
    """The best two as score:index:label."""
    for row, scores in zip(seen["best"]["scores"], expected, strict=True):
        best = sorted(range(4), key=lambda index: -scores.expected[index])[:2]
        found = [text.split(":") for text in row]
        assert [(int(index), label) for _, index, label in found] == [(index, CLASSES[index]) for index in best]
        assert [float(score) for score, _, _ in found] == pytest.approx([scores.expected[i] for i in best], abs=1e-5)


def test_the_id_comes_back(seen: Any) -> None:
    """With the model and the version that answered."""
    assert seen["id"] == ["abc", "pets", "1"]


def test_errors_are_triton_s(seen: Any) -> None:
    """As its exceptions show them."""
    assert seen["errors"] == [
        "Request for unknown model: 'cats' is not found",
        "unexpected inference input 'pixels' for model 'pets'",
        "unexpected shape for input 'images' for model 'pets'. Expected [-1,32,32,3], got [32,32,3]",
    ]
