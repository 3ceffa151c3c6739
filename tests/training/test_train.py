"""A whole run: what it publishes, what it says when something is wrong, and that being killed leaves nothing behind."""

import csv
import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf
from PIL import Image as Pillow

from service.errors import BrokenVersion
from service.image import decode
from service.manifest import MANIFEST
from service.offline import OfflineClassifier
from service.published import list_versions
from service.version import read_version, verify_files
from tests.running import eventually, runs
from tests.training.test_scalars import read_events
from training import evaluation, train
from training.__main__ import main
from training.report.version import PREDICTIONS

# NumPy 2 about TensorFlow, in Keras' own code
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

_NETWORK = ("--strategy", "linear", "--backbone", "mobilenet:0.25", "--weights", "none", "--side", "32")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for all runs of this module."""
    return tmp_path_factory.mktemp("cache")


def _arguments(data: Path, models: Path, cache: Path, *more: str) -> list[str]:
    return ["train", str(data), "--models", str(models), "--name", "tints", "--cache", str(cache), *_NETWORK, *more]


@pytest.fixture(scope="module")
def published(photos: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published version of strategy `linear`, of `photos` and a file that is no image."""
    models = tmp_path_factory.mktemp("models")
    (photos / "red" / "broken.jpg").write_bytes(b"no image")
    try:
        assert main(_arguments(photos, models, cache)) == 0
    finally:
        (photos / "red" / "broken.jpg").unlink()
    assert list_versions(models) == {"tints": [1]}
    return models / "tints" / "1"


def test_manifest_tells_the_run(published: Path):
    """Names, recipe, split sizes, metrics with intervals, phases and hashes are there and agree with each other."""
    version = read_version(published)
    verify_files(version)
    manifest = version.manifest
    assert (manifest.name, manifest.version) == ("tints", 1)
    assert list(manifest.class_names) == ["blue", "green", "red"]
    recipe = manifest.recipe
    assert (recipe.strategy, recipe.backbone, recipe.weights) == ("linear", "MobileNet:0.25", "none")
    assert recipe.command.startswith("python -m training train ")
    assert recipe.trained_parameters == 256 * 3 + 3
    assert recipe.total_parameters > 200_000
    sides = manifest.data
    assert (sides.images, sides.unreadable) == (60, 1)
    assert sides.train + sides.validation + sides.test + sides.duplicates == 60
    test = manifest.metrics.test
    assert test.images == sides.test
    low, high = test.accuracy_interval
    assert 0 <= low <= test.accuracy <= high <= 1
    assert test.engine
    assert {phase.name for phase in recipe.phases} >= {"indexing", "computing features", "exporting"}
    assert manifest.serving_bytes.mean_pixel_difference > 0
    assert [one.winner for one in recipe.evidence] == [True] + [False] * (len(recipe.evidence) - 1)
    for one in recipe.evidence:
        assert one.accuracy_interval[0] <= one.validation_accuracy <= one.accuracy_interval[1]
        assert (one.images, one.parameters) == (sides.train + sides.validation, 256 * 3 + 3)
        assert one.seconds > 0
    assert not recipe.HasField("decision")
    for side in ("train", "validation", "test"):
        assert sum(getattr(one, side) for one in sides.classes) == getattr(sides, side)
    assert list(sides.given_splits) == []
    for one in test.classes:
        assert one.recall_interval[0] <= one.recall <= one.recall_interval[1]
        assert len(one.precision_interval) == 2 * (one.answered > 0)
    first = manifest.audit.findings[0]
    assert (first.kind, first.severity, first.count, first.unit) == ("unreadable", "warning", 1, "files")
    assert not manifest.HasField("champion")


@pytest.mark.parametrize(
    ("data", "name"), [("photos-2024.05", "photos-2024.05"), ("photos.zip", "photos"), ("a.csv", "a")]
)
def test_a_model_is_called_as_its_data(data: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file's ending is no part of that; a folder has none."""
    (tmp_path / data).touch() if data.endswith(("zip", "csv")) else (tmp_path / data).mkdir()
    seen = []
    monkeypatch.setattr(train, "run", lambda settings, _: seen.append(settings.name))
    assert main(["train", str(tmp_path / data)]) == 0
    assert seen == [name]


def test_tensorflow_s_own_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A GPU without memory names the flags that need less; anything else says what it was."""
    exhausted = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nHint: ...")
    full = tf.errors.ResourceExhaustedError(None, None, "/models/x; No space left on device")
    other = tf.errors.DataLossError(None, None, "not an sstable\nmore")
    silent = tf.errors.InternalError(None, None, "")
    with pytest.raises(tf.errors.InvalidArgumentError) as within:
        tf.function(tf.io.decode_jpeg)(b"abc")
    for error, said in (
        (exhausted, "smaller --batch-size or --side"),
        (full, "TensorFlow failed: /models/x; No space left on device;"),
        (other, "TensorFlow failed: not an sstable;"),
        (silent, "TensorFlow failed: InternalError;"),
        (within.value, "TensorFlow failed: Unknown image file format."),
    ):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(train, "run", fail)
        assert main(["train", str(tmp_path)]) == 1
        printed = capsys.readouterr().err
        assert said in printed
        assert printed.count("\n") == 1


def test_a_cut_that_is_not_there_is_said_before_anything_is_computed(
    photos: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The backbone is enough to know it."""
    assert main([*_arguments(photos, tmp_path, cache), "--strategy", "partial", "--freeze", "50"]) == 2
    said = capsys.readouterr()
    assert "expected --freeze of 1 to 13" in said.err
    assert "indexing" not in said.out


def test_predictions_are_the_service_s_answers(published: Path, photos: Path):
    """Asked again, the version gives the recorded label and score, and saw the pixels that the decode gives."""
    with (published / PREDICTIONS).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    version = read_version(published)
    test = version.manifest.metrics.test
    assert len(rows) == test.images
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert right / len(rows) == pytest.approx(test.accuracy)
    files = [(photos / row["path"]).read_bytes() for row in rows]
    with OfflineClassifier(published) as classifier:
        for row, file, result in zip(rows, files, classifier.classify(files, 1, pixels_sha256=True), strict=True):
            assert result.label == row["predicted"]
            assert result.score == pytest.approx(float(row["score"]), abs=1e-3)
            pixels = decode(file, version.spec)
            assert result.pixels_sha256 == row["pixels_sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()
            assert row["sha256"] == hashlib.sha256(file).hexdigest()


def test_report_stands_alone(published: Path):
    """One page, nothing fetched from elsewhere; it has the verdict, the command and the rejected file."""
    page = (published / "assets.extra" / "report" / "index.html").read_text(encoding="utf-8")
    assert "http://" not in page
    assert "https://" not in page
    assert "that it had never seen were answered rightly" in page
    assert page.count("<svg ") == 2  # evidence and confusion
    assert "python -m training train" in page
    assert "broken.jpg" in page
    assert {file.name for file in (published / "assets.extra" / "report").iterdir()} == {
        "index.html", "predictions.csv", "confusion.svg", "confusion.png", "evidence.svg", "evidence.png",
    }  # fmt: skip
    assert "Audit of the data" in page
    wrong = 1 - read_version(published).manifest.metrics.test.accuracy
    assert ("Most confident mistakes" in page) == (wrong > 0)
    assert 'id="unreadable"' in page


def test_summary_names_what_matters(photos: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A run with `partial`: classes, split, parameters, accuracy, where it is, and the next command."""
    flags = ("--strategy", "partial", "--epochs", "1", "--unfreeze", "1", "--group-regex", r"/(\d\d)\.")
    flags = (*flags, "--tensorboard", str(tmp_path / "events"))
    assert main(_arguments(photos, tmp_path, cache, *flags)) == 0
    said = capsys.readouterr().out
    for expected in (
        "3: blue, green, red",
        "trained of",
        "test accuracy",
        "(95 %:",
        "epoch 1",
        str(tmp_path / "tints/1"),
    ):
        assert expected in said
    assert f"python -m service --models {tmp_path}" in said
    assert "that it had never seen were answered rightly" in said
    events = read_events(tmp_path / "events" / "train")
    assert events.keys() == {("epoch_loss", 1), ("epoch_accuracy", 1)}
    assert f"epoch 1                loss {events['epoch_loss', 1].expected:.4f}" in said
    assert read_events(tmp_path / "events" / "validation").keys() == {
        (f"epoch_{what}", at) for what in ("loss", "accuracy") for at in (0, 1)
    }
    chosen = read_version(tmp_path / "tints" / "1").manifest.recipe.hyperparameters
    assert (chosen["unfreeze"], chosen["group_regex"]) == ("1", r"/(\d\d)\.")


def test_somebody_else_publishes_meanwhile(photos: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The number is taken at the last moment: the run takes the next one, and its manifest and report say so."""
    publish = train.publish

    def late(unfinished: Path, models: Path, name: str) -> Path:
        monkeypatch.setattr(train, "publish", publish)
        (models / name / "1").mkdir()
        return publish(unfinished, models, name)

    monkeypatch.setattr(train, "publish", late)
    assert main(_arguments(photos, tmp_path, cache)) == 0
    version = read_version(tmp_path / "tints" / "2")
    assert version.number == 2
    verify_files(version)
    page = (tmp_path / "tints" / "2" / "assets.extra" / "report" / "index.html").read_text(encoding="utf-8")
    assert "version 2" in page
    assert "version 1" not in page


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (BrokenVersion("scores differ"), 1)])
def test_failure_before_publishing_leaves_nothing(  # noqa: PLR0917 - fixtures
    photos: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
):
    """Ctrl-C, a version that is refused: one line, the right status, and no directory."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(evaluation, "ask", fail)
    assert main(_arguments(photos, tmp_path, cache)) == status
    assert list((tmp_path / "tints").iterdir()) == []
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "nothing was published" in said


def test_kill_9_leaves_nothing_that_a_server_would_load(photos: Path, cache: Path, tmp_path: Path):
    """Killed at a random moment of exporting, testing or publishing, there is no version; the next run cleans up."""
    chance = random.Random(time.time_ns())
    root = Path(__file__).resolve().parents[2]
    for _ in range(2):
        running = subprocess.Popen(
            [sys.executable, "-m", "training", *_arguments(photos, tmp_path, cache)],
            cwd=root,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for line in running.stdout:
            if line.startswith("fitting the head"):
                break
        time.sleep(chance.uniform(0, 1.5))
        running.send_signal(signal.SIGKILL)
        running.wait()
        running.stdout.close()
        assert list_versions(tmp_path) in ({}, {"tints": [1]})
        for number in list_versions(tmp_path).get("tints", []):  # it was done before the signal came
            verify_files(read_version(tmp_path / "tints" / str(number)))
    assert main(_arguments(photos, tmp_path, cache)) == 0
    assert all(folder.name.isdigit() for folder in (tmp_path / "tints").iterdir())


_HOLD = """
import sys, time
from pathlib import Path
from service.offline import OfflineClassifier

with OfflineClassifier(Path(sys.argv[1])) as classifier:
    print(*(engine.pid for engine in classifier._engines), flush=True)
    time.sleep(600)
"""


def test_engines_end_with_a_trainer_that_is_killed(published: Path):
    """SIGKILL for the trainer alone, as the kernel does when memory runs out, while its engines answer test images."""
    root = Path(__file__).resolve().parents[2]
    running = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(published)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    engines = [int(pid) for pid in running.stdout.readline().split()]
    assert engines
    assert all(map(runs, engines))
    running.kill()
    running.wait()
    running.stdout.close()
    eventually(lambda: not any(map(runs, engines)), "the end of the engines")


def test_bad_input_is_one_line(photos: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """No data, one class, a wrong backbone, weights, name or place: exit 2 and a line that says what was expected."""
    (tmp_path / "one" / "cat").mkdir(parents=True)
    Pillow.new("RGB", (40, 40)).save(tmp_path / "one" / "cat" / "a.png")
    (tmp_path / "file").write_text("in the way")
    models = tmp_path / "models"
    for arguments, expected in (
        (_arguments(tmp_path / "absent", models, cache), "there is nothing"),
        (_arguments(tmp_path / "one", models, cache), "at least two classes"),
        (_arguments(photos, models, cache, "--backbone", "resnet51"), "did you mean"),
        (_arguments(photos, models, cache, "--weights", "absent.h5"), "found no file absent.h5"),
        (_arguments(photos, models, cache, "--side", "16"), "cannot be built"),
        (_arguments(photos, models, cache, "--name", "../up"), "expected --name"),
        (_arguments(photos, models, cache, "--group-regex", "red"), "captures nothing"),
        (_arguments(photos, models, cache, "--group-regex", "(purple)"), "matches none of 60"),
        (_arguments(photos, tmp_path / "file", cache), "write to"),
        (_arguments(photos, models, cache, "--test-fraction", "0.6", "--validation-fraction", "0.4"), "to train on"),
    ):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert expected in said
    assert list_versions(models) == {}
    assert not any(models.glob("*/.*"))


@pytest.mark.parametrize(
    "wrong", [("--side", "0"), ("--epochs", "none"), ("--learning-rate", "-1"), ("--strategy", "magic")]
)
def test_wrong_flag_values_are_refused(photos: Path, wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    """It is said which flag, what was expected and what came."""
    with pytest.raises(SystemExit) as ended:
        main(["train", str(photos), *wrong])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert wrong[0] in said
    assert wrong[1] in said


def test_help_is_instant():
    """--help imports neither TensorFlow nor scikit-learn nor OpenVINO."""
    code = (
        "import sys, training.__main__ as m\n"
        "try: m.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'tensorflow', 'keras', 'sklearn', 'openvino'} & set(sys.modules), 'heavy import'"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--strategy" in done.stdout


def test_manifest_has_no_path_of_weights(published: Path):
    """A weights file is named, not located; the command is what was typed."""
    assert "/" not in read_version(published).manifest.recipe.weights
    assert (published / MANIFEST).is_file()
