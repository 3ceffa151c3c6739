"""Trainer and service give the same answer for the same file: pixels, label and score, over both protocols."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import grpc
import pytest

from protos.classifier_pb2 import ClassifyRequest, Image
from protos.classifier_pb2_grpc import ImageClassifierStub
from service.image import ImageSpec, decode
from service.version import REPORT, read_version
from tests.running import Service, start

_ROOT = Path(__file__).resolve().parent.parent
_SHARED = _ROOT.parent / "shared"
_DATA = _SHARED / "data" / "four-classes"

pytestmark = pytest.mark.skipif(
    not _DATA.is_dir(), reason="needs the photos and ImageNet weights in ../shared, which are not part of the project"
)


@dataclass(frozen=True)
class Recorded:
    """What the trainer wrote down of one test image when it evaluated the export."""

    data: bytes
    label: str
    score: float
    pixels_sha256: str


@dataclass(frozen=True)
class Trained:
    """A version of four-classes, trained by the command that a user would type."""

    models: Path
    version: Path
    seconds: float
    recorded: list[Recorded]


def train(models: Path, *flags: str) -> Trained:
    """Runs the trainer on four-classes with an empty cache and reads what it recorded."""
    command = [sys.executable, "-m", "training", "train", str(_DATA), "--models", str(models), "--name", "four", *flags]
    environment = os.environ | {"KERAS_HOME": str(_SHARED / "keras")}
    started = time.monotonic()
    ended = subprocess.run(
        [*command, "--cache", str(models.parent / "cache")],
        cwd=_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (version,) = (path for path in (models / "four").iterdir() if path.name.isdigit())
    with (version / REPORT / "predictions.csv").open(encoding="utf-8", newline="") as lines:
        recorded = [
            Recorded((_DATA / row["path"]).read_bytes(), row["predicted"], float(row["score"]), row["pixels_sha256"])
            for row in csv.DictReader(lines)
        ]
    return Trained(models, version, time.monotonic() - started, recorded)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The strategy `linear` on ImageNet weights."""
    return train(tmp_path_factory.mktemp("four") / "models", "--strategy", "linear")


@pytest.fixture(scope="module")
def serving(trained: Trained) -> Iterator[Service]:
    """A service with that version, on the engine that this host would use."""
    service = start(trained.models)
    try:
        service.wait_ready()
        yield service
    finally:
        service.stop()


def compare(expected: list[Recorded], answer: Callable[[bytes], tuple[str, float, str]]) -> None:
    """Asserts that every image gets the label, the score to 1e-3 and the pixels that the trainer recorded."""
    for one in expected:
        label, score, pixels = answer(one.data)
        assert pixels == one.pixels_sha256
        assert (label, score) == (one.label, pytest.approx(one.score, abs=1e-3))


def over_http(service: Service) -> Callable[[bytes], tuple[str, float, str]]:
    """Asks by POST /classify."""

    def ask(data: bytes) -> tuple[str, float, str]:
        answer = service.classify(data, "?pixels_sha256=1", "image/jpeg")
        assert answer.status == 200, answer.body
        (result,) = answer.json["results"]
        return result["label"], result["score"], result["pixels_sha256"]

    return ask


def test_the_version_says_how_good_it_is(trained: Trained):
    """The manifest holds at least 0.96 test accuracy on at least 100 de-duplicated images, with its interval."""
    test = read_version(trained.version).manifest.metrics.test
    low, high = test.accuracy_interval
    assert test.images == len(trained.recorded) >= 100
    assert 0.96 <= test.accuracy <= 1
    assert low < test.accuracy < high or test.accuracy == 1


def test_every_test_image_is_answered_as_recorded_over_http(trained: Trained, serving: Service):
    """POST /classify gives label, score and pixels of the trainer's own evaluation of the export."""
    compare(trained.recorded, over_http(serving))


def test_every_test_image_is_answered_as_recorded_over_grpc(trained: Trained, serving: Service):
    """Classify gives label, score and pixels of the trainer's own evaluation of the export."""
    with grpc.insecure_channel(serving.grpc) as channel:
        stub = ImageClassifierStub(channel)

        def ask(data: bytes) -> tuple[str, float, str]:
            (result,) = stub.Classify(ClassifyRequest(images=[Image(data=data)], pixels_sha256=True)).results
            return result.label, result.score, result.pixels_sha256

        compare(trained.recorded, ask)


def test_the_comparison_fails_when_one_side_resamples_differently(trained: Trained, serving: Service):
    """The twin: with another filter on the trainer's side, the same comparison fails."""
    spec = read_version(trained.version).spec
    other = ImageSpec(spec.side_px, spec.resize, "lanczos")
    changed = [
        Recorded(one.data, one.label, one.score, sha256(decode(one.data, other).tobytes()).hexdigest())
        for one in trained.recorded
    ]
    differ = [before != after for before, after in zip(trained.recorded, changed, strict=True)]
    assert sum(differ) > 0.9 * len(differ)  # a picture that has the model's size already is not resampled
    with pytest.raises(AssertionError):
        compare(changed, over_http(serving))


def test_many_images_in_one_request_are_answered_as_one_by_one(trained: Trained, serving: Service):
    """Sharing a batch with others changes no answer."""
    some = trained.recorded[:16]
    with grpc.insecure_channel(serving.grpc) as channel:
        request = ClassifyRequest(images=[Image(data=one.data) for one in some])
        results = ImageClassifierStub(channel).Classify(request).results
    assert [result.label for result in results] == [one.label for one in some]
    assert [result.score for result in results] == pytest.approx([one.score for one in some], abs=1e-3)


def test_without_weights_the_same_training_is_far_worse(tmp_path: Path, trained: Trained):
    """Random weights show that the ImageNet ones were loaded and matter: at least 25 points of accuracy."""
    random = train(tmp_path / "models", "--strategy", "linear", "--weights", "none")
    manifest = json.loads((random.version / "assets.extra" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["metrics"]["test"]["accuracy"] < read_version(trained.version).manifest.metrics.test.accuracy - 0.25
