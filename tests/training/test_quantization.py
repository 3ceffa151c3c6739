"""training/quantization.py: the network in 8 bits is there where it answers as well, and nowhere else."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import BrokenVersion
from service.image import ImageSpec
from service.offline import OfflineClassifier
from service.version import QUANTIZED, Version, read_version, verify_files, write_manifest
from tests.running import Service
from training import champion, evaluation, pixels, quantization
from training.__main__ import main
from training.dataset import Image, index
from training.evaluation import Prediction

# NumPy 2 about TensorFlow, in Keras' own code
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

needs_instructions = pytest.mark.skipif(not quantization.can_test(), reason="needs a CPU with VNNI or AMX")

_WEIGHTS = QUANTIZED.replace(".xml", ".bin")


def _train(photos: Path, folder: Path, *more: str) -> Version:
    command = ["train", str(photos), "--models", str(folder / "models"), "--name", "tints", "--cache", str(folder)]
    network = ["--strategy", "scratch", "--epochs", "8", "--side", "32"]
    assert main([*command, *network, "--quantize", *more]) == 0
    version = read_version(folder / "models" / "tints" / "1")
    verify_files(version)
    return version


@pytest.fixture(scope="module")
def quantized(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A version with a quantized network."""
    return _train(photos, tmp_path_factory.mktemp("quantized"))


@needs_instructions
def test_it_is_part_of_the_version(quantized: Version):
    """With its hashes, what it is worth on the same images, and a line in the report; without paths of this machine."""
    manifest = quantized.manifest
    assert {QUANTIZED, _WEIGHTS} <= set(manifest.files_sha256)
    assert (manifest.metrics.quantized.engine, manifest.metrics.quantized.images) == (
        "openvino/int8", manifest.metrics.test.images,
    )  # fmt: skip
    assert manifest.metrics.test.engine != "openvino/int8"
    assert manifest.library_versions["nncf"]
    report = (quantized.path / "assets.extra" / "report" / "index.html").read_text(encoding="utf-8")
    assert "in 8 bits" in report
    assert str(quantized.path.parents[3]) not in (quantized.path / QUANTIZED).read_text(encoding="utf-8")


@needs_instructions
def test_it_is_smaller_and_answers_the_same(quantized: Version, photos: Path):
    """On the engine that is named for it, within the tolerance of every engine of low precision."""
    floats = (quantized.path / "saved_model.pb").stat().st_size
    assert 2 * (quantized.path / _WEIGHTS).stat().st_size < floats
    images = [file.read_bytes() for file in sorted(photos.rglob("*.jpg"))]
    answers = {}
    for engine in ("openvino/int8", "openvino/f32"):
        with OfflineClassifier(quantized.path, engine) as classifier:
            assert classifier.engine == engine
            answers[engine] = [(one.label, one.score) for one in classifier.classify(images)]
    pairs = list(zip(*answers.values(), strict=True))
    assert max(abs(ours - exact) for (_, ours), (_, exact) in pairs) < 0.05
    assert sum(ours != exact for (ours, _), (exact, _) in pairs) <= len(pairs) // 20


@needs_instructions
def test_the_service_uses_it_and_says_so(quantized: Version, start_service: Callable[..., Service]):
    """Which engine answers is told as of any other."""
    service = start_service(quantized.path.parents[1], engine="openvino/int8")
    assert service.readyz().json["models"]["tints"]["versions"]["1"]["engine"] == "openvino/int8"


@needs_instructions
def test_one_that_does_not_reproduce_the_goldens_is_not_served(quantized: Version, photos: Path, tmp_path: Path):
    """Such as another network's: by `auto` the next engine is taken, by name the version is refused."""
    folder = tmp_path / "tints" / "1"
    shutil.copytree(quantized.path, folder)
    other = _train(photos, tmp_path / "other", "--seed", "1")
    for name in (QUANTIZED, _WEIGHTS):
        shutil.copyfile(other.path / name, folder / name)
    write_manifest(folder, read_version(folder).manifest)
    with OfflineClassifier(folder) as classifier:
        assert classifier.engine in {"openvino/bf16", "openvino/f32"}
    with pytest.raises(BrokenVersion, match=r"^openvino/int8: golden .* scores differ"):
        OfflineClassifier(folder, "openvino/int8")


@needs_instructions
def test_a_champion_is_compared_with_what_will_be_served(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """That is the network in 8 bits, where it is kept."""
    asked = []
    monkeypatch.setattr(quantization, "test", lambda _, predictions, __: _Answers(predictions))
    monkeypatch.setattr(champion, "compare", lambda _models, _name, predictions, **_: asked.append(type(predictions)))
    _train(photos, tmp_path, "--champion")
    assert asked == [_Answers]


class _Answers(list[Prediction]):
    """Told apart from what another network has answered."""


def test_a_cpu_that_could_not_test_it_is_told_before_training(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """It would compute otherwise than those that serve it."""
    monkeypatch.setattr(quantization, "can_test", lambda: False)
    assert main(["train", str(photos), "--models", str(tmp_path), "--cache", str(tmp_path), "--quantize"]) == 2
    said = capsys.readouterr()
    assert "expected a CPU with instructions for 8 bits (VNNI or AMX) for --quantize" in said.err
    assert "indexing" not in said.out


@needs_instructions
def test_a_network_that_it_does_not_suit_is_published_without(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The person is told why; nothing of it stays."""
    monkeypatch.setattr(evaluation, "predict", _fail)
    version = _train(photos, tmp_path)
    assert "not quantized: golden 03.jpg: scores differ\n" in capsys.readouterr().out
    assert not {QUANTIZED, _WEIGHTS} & set(version.manifest.files_sha256)
    assert not version.manifest.metrics.HasField("quantized")


def _fail(*_: object) -> None:
    raise BrokenVersion("golden 03.jpg: scores differ")


@pytest.mark.parametrize(("lost", "good"), [(4, True), (5, False)])
def test_one_that_is_significantly_worse_is_refused(
    lost: int, good: bool, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By the test that a champion is asked for; five lost and none won are one chance in 32."""
    images = index(photos, tmp_path).images[:20]
    right = [Prediction(image, image.label, 0.9, "") for image in images]
    answers = [replace(one, predicted="grey") if at < lost else one for at, one in enumerate(right)]
    monkeypatch.setattr(evaluation, "predict", lambda *_: (answers, "openvino/int8"))
    if good:
        assert quantization.test(tmp_path, right, print) == answers
    else:
        with pytest.raises(BrokenVersion, match=r"5 of 20 test images .* 0 only with it \(p = 0\.0312\)"):
            quantization.test(tmp_path, right, print)


def test_ranges_come_from_images_of_every_class(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Evenly chosen where there are more than are asked for."""
    images = index(photos, tmp_path).images
    monkeypatch.setattr(quantization, "_MOST_IMAGES", 6)

    def enough(chosen: Sequence[Image], *_: object) -> None:
        raise BrokenVersion(" ".join(one.label for one in chosen))

    monkeypatch.setattr(pixels, "batches", enough)
    with pytest.raises(BrokenVersion, match=r"^blue blue green green red red$"):
        quantization.write(tmp_path, images, ImageSpec(32), print)


def test_nobody_is_told_what_is_done_here(tmp_path: Path):
    """OpenVINO and NNCF would give the user a number, in a folder of the home directory, and report under it."""
    code = "from training import quiet; quiet.import_openvino(); import nncf"
    home = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], env=os.environ | home, check=True)
    assert not list(tmp_path.iterdir())
