"""KServe's Python client, unchanged, over its three protocols, by `make test-clients`: it wants an older protobuf."""

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

_SCRIPT = Path(__file__).with_name("kserve_sdk.py")
_PYTHON = os.environ.get("GRAFT_CLIENTS_PYTHON", "")
pytestmark = pytest.mark.skipif(not _PYTHON, reason="needs the clients' environment: make test-clients")
_WAYS = ("v1 pixels", "v1 files", "v2 files", "v2 json", "v2 binary", "grpc raw", "grpc floats")


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Some."""
    return [encode(photo(seed)) for seed in range(5)]


@pytest.fixture(scope="module")
def seen(service: Service, images: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the client got."""
    folder = tmp_path_factory.mktemp("images")
    np.save(folder / "pixels.npy", np.stack([decode(image, ImageSpec(SIDE_PX)) for image in images]))
    paths = [folder / f"{number}.jpg" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(image)
    command = [_PYTHON, str(_SCRIPT), service.http, service.grpc, str(folder / "pixels.npy"), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_it_is_live_and_ready(seen: Any) -> None:
    """Server and model, over HTTP and gRPC."""
    assert seen["ready"] == [True] * 6


@pytest.mark.parametrize("way", _WAYS)
def test_infer_gives_the_scores_of_the_one_data_plane(
    service: Service, images: list[bytes], seen: Any, way: str
) -> None:
    """Tensors and files, as JSON and binary."""
    for image, scores in zip(images, seen[way], strict=True):
        (result,) = service.classify(image).json["results"]
        by_label = {one["label"]: one["score"] for one in result["top"]}
        assert scores == pytest.approx([by_label[name] for name in CLASSES], abs=1e-5)
