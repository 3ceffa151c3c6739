"""A version directory may hold any file; what is said of it reaches every client."""

import os
from collections.abc import Callable
from pathlib import Path

import grpc

from protos.classifier_pb2 import ListModelsRequest
from protos.classifier_pb2_grpc import ImageClassifierStub
from tests.conftest import VersionFactory
from tests.running import Service, eventually


def test_a_name_that_is_no_utf_8_is_told(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
) -> None:
    """A stray file's name is told as far as it is text, and hides no other version from who asks."""
    version_factory(tmp_path, number=1)
    broken = version_factory(tmp_path, number=2)
    Path(os.fsdecode(os.fsencode(broken) + b"/caf\xe9.txt")).write_bytes(b"x")
    service = start_service(tmp_path)
    eventually(lambda: "is refused" in service.log(), "the refusal")
    with grpc.insecure_channel(service.grpc) as channel:
        stub = ImageClassifierStub(channel)

        def refused() -> dict[int, str]:
            (model,) = stub.ListModels(ListModelsRequest(), timeout=20).models
            return {one.version: one.error for one in model.versions if one.error}

        assert eventually(refused, "the refusal in ListModels") == {2: "1 file(s) not in the manifest: caf\\udce9.txt"}
