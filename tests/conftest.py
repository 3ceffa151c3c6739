"""What tests share: real version directories made in a moment, and real services on free ports."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import hypothesis
import pytest
from google.protobuf import json_format

from protos.classifier_pb2_grpc import ImageClassifierStub
from protos.manifest_pb2 import Goldens, Manifest
from service.image import DECODE_VERSION
from service.manifest import MANIFEST
from service.version import GOLDENS, SCHEMA_VERSION, UNFINISHED, publish, write_manifest
from tests.running import Service, start

# A busy machine is no error: no example of a property has to be quick.
hypothesis.settings.register_profile("graft", deadline=None)
hypothesis.settings.load_profile("graft")

_ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("red", "green", "blue", "grey")
SIDE_PX = 32


@dataclass
class VersionFactory:
    """Publishes version directories of the tests' models (tests/tiny_model.py) in a few milliseconds.

    The label of a plain picture is its colour: "red", "green", "blue" or "grey"; other `class_names` rename them in
    this order, so two versions can be told apart by what they answer.
    """

    template: Path

    def __call__(
        self,
        models: Path,
        name: str = "pets",
        number: int = 1,
        *,
        class_names: Sequence[str] = CLASSES,
        unknown_threshold: float = 0.0,
        wrong_scores: bool = False,
        wrong_pixels: bool = False,
        mapped: bool = False,
    ) -> Path:
        """Publishes <models>/<name>/<number> and returns its path.

        Args:
            models: the models directory; made where it is missing.
            name: the model's name.
            number: the version's number.
            class_names: what the four scores are called.
            unknown_threshold: as in the manifest.
            wrong_scores: record other scores than the model gives, so that a service must refuse the version.
            wrong_pixels: record other pixels than the decode gives, likewise.
            mapped: the model that has class activation maps.
        """
        chosen = {"class_names": class_names, "unknown_threshold": unknown_threshold, "mapped": mapped}
        unfinished = self.unfinished(models, name, number, **chosen)
        goldens = unfinished / GOLDENS
        if wrong_scores:
            recorded = json_format.Parse((goldens / "goldens.json").read_text(encoding="utf-8"), Goldens())
            recorded.goldens[0].scores[:] = list(recorded.goldens[0].scores)[::-1]
            text = json_format.MessageToJson(recorded, preserving_proto_field_name=True)
            (goldens / "goldens.json").write_text(text, encoding="utf-8")
        if wrong_pixels:
            shutil.copyfile(goldens / "1.pixels.png", goldens / "0.pixels.png")
        manifest = json_format.Parse((unfinished / MANIFEST).read_text(encoding="utf-8"), Manifest())
        write_manifest(unfinished, manifest)
        return publish(unfinished, models, name)

    def unfinished(
        self,
        models: Path,
        name: str = "pets",
        number: int = 1,
        *,
        class_names: Sequence[str] = CLASSES,
        unknown_threshold: float = 0.0,
        mapped: bool = False,
    ) -> Path:
        """A finished directory, manifest and all, that only lacks the rename; as a trainer would have it."""
        folder = models / name / f"{UNFINISHED}{os.getpid()}-{number}"
        shutil.copytree(self.template / ("mapped" if mapped else "model"), folder)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=name,
            version=number,
            class_names=class_names,
            unknown_threshold=unknown_threshold,
        )
        manifest.image.side_px, manifest.image.decode_version = SIDE_PX, DECODE_VERSION
        if mapped:
            json_format.Parse((self.template / "maps.json").read_text("utf-8"), manifest.class_activation_maps)
            manifest.image.resize, manifest.image.resample = "crop", "bilinear"
        else:
            manifest.image.resize, manifest.image.resample = "squash", "bilinear"
        write_manifest(folder, manifest)
        return folder


@pytest.fixture(scope="session")
def version_factory(tmp_path_factory: pytest.TempPathFactory) -> VersionFactory:
    """Makes version directories; see VersionFactory. TensorFlow runs once per session, elsewhere."""
    template = tmp_path_factory.mktemp("tiny")
    made = subprocess.run(
        [sys.executable, "-m", "tests.tiny_model", str(template)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return VersionFactory(template)


@pytest.fixture
def start_service() -> Iterator[Callable[..., Service]]:
    """Starts services of a test's own: `start_service(models, engines=1, ready=True, **settings)`.

    All of them are ended by SIGTERM afterwards; the test fails when one does not exit with 0 or leaves a process.
    """
    with ExitStack() as services:

        def begin(models: Path, *, ready: bool = True, **settings: object) -> Service:
            service = start(models, **({"engines": 1} | settings))
            services.callback(service.stop)
            if ready:
                service.wait_ready()
            return service

        yield begin


@pytest.fixture(scope="session")
def service(version_factory: VersionFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for every test that only asks: "pets" version 1, two engines, OpenVINO in float32, small limits."""
    models = tmp_path_factory.mktemp("shared") / "models"
    version_factory(models)
    running = start(
        models,
        engines=2,
        engine="openvino/f32",
        max_images=20,
        max_body_bytes=2_000_000,
        max_image_bytes=500_000,
    )
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def mapped_service(version_factory: VersionFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One more for all who only ask: "pets" version 1, which is not sure of greys and has class activation maps."""
    models = tmp_path_factory.mktemp("mapped") / "models"
    version_factory(models, mapped=True, unknown_threshold=0.8)
    running = start(models, engines=1, engine="openvino/f32")
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture
def stub(service: Service) -> Iterator[ImageClassifierStub]:
    """The shared service over gRPC."""
    with grpc.insecure_channel(service.grpc) as channel:
        yield ImageClassifierStub(channel)
