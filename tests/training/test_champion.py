"""The champion gate: a fair test on the same images, that only a version which is really worse does not pass."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from protos.manifest_pb2 import ChampionComparison
from service.version import read_version, write_manifest
from tests.conftest import CLASSES, VersionFactory
from tests.pictures import plain
from training import champion, train
from training.__main__ import main
from training.champion import compare, describe
from training.dataset import Image
from training.evaluation import Prediction
from training.settings import Settings


@given(st.integers(0, 200), st.integers(0, 200))
def test_p_value_is_the_tail_of_a_fair_coin(lost: int, won: int):
    """It is the binomial tail; losing no more than winning is never significant; losing one more is never less so."""
    p = champion.p_value(lost, won)
    assert p == pytest.approx(binom.sf(lost - 1, lost + won, 0.5) if lost + won else 1.0)
    assert p >= 0.5 or lost > won
    assert champion.p_value(lost + 1, won) <= p + 1e-12


def _predictions(folder: Path, right: int, wrong: int, label: str = "red") -> list[Prediction]:
    file = folder / f"{label}.png"
    file.write_bytes(plain(label))
    image = Image(file, label, None, hashlib.sha256(plain(label)).hexdigest(), 0, b"")
    return [Prediction(image, label, 1.0, "")] * right + [Prediction(image, "other", 1.0, "")] * wrong


def _compare(
    models: Path, predictions: list[Prediction], names: tuple[str, ...] = CLASSES
) -> ChampionComparison | None:
    return compare(
        models, "pets", predictions, class_names=names, test_sha256="new", engine="openvino/f32",
        on_progress=lambda _done, _all: None,
    )  # fmt: skip


def test_the_highest_version_answers_the_same_images(version_factory: VersionFactory, tmp_path: Path):
    """Five images that only the champion knows are significant, four are not; other test images are mentioned."""
    version_factory(tmp_path, number=1, class_names=("green", "red", "blue", "grey"))  # wrong about everything red
    version_factory(tmp_path, number=3)
    worse, hardly = (_compare(tmp_path, _predictions(tmp_path, 2, wrong)) for wrong in (5, 4))
    counts = {"version": 3, "images": 7, "right_new": 2, "right_champion": 7, "only_champion": 5}
    assert worse == ChampionComparison(**counts, p_value=worse.p_value, worse=True, note=worse.note)
    assert worse.p_value == pytest.approx(1 / 32)
    assert worse.worse
    assert not hardly.worse
    assert "was tested on other images and may have been trained on some of these" in worse.note
    manifest = read_version(tmp_path / "pets" / "3").manifest
    manifest.data.test_sha256 = "new"
    write_manifest(tmp_path / "pets" / "3", manifest)
    assert not _compare(tmp_path, _predictions(tmp_path, 2, 5)).note
    assert "significantly worse than version 3: 2 of 7 test images right against 7" in describe(worse)


@pytest.mark.parametrize(("policy", "asked"), [('{"labels": {"stable": 1}}', 1), ("{", 3), ("{}", 3)])
def test_the_champion_is_the_live_version(version_factory: VersionFactory, tmp_path: Path, policy: str, asked: int):
    """After a rollback that is not the highest; without a policy that can be understood it is."""
    version_factory(tmp_path, number=1)
    version_factory(tmp_path, number=3)
    (tmp_path / "pets" / "serving.json").write_text(policy)
    assert _compare(tmp_path, _predictions(tmp_path, 2, 2)).version == asked


def test_classes_that_only_one_knows_are_left_out(version_factory: VersionFactory, tmp_path: Path):
    """Their images are not compared, and the sentence says on how many classes it was."""
    version_factory(tmp_path)
    unshared = Image(tmp_path / "absent", "purple", None, "", 0, b"")
    asked = [*_predictions(tmp_path, 3, 0), Prediction(unshared, "red", 1.0, "")]
    found = _compare(tmp_path, asked, ("purple", "red", "green"))
    assert (found.images, found.right_champion) == (3, 3)
    assert "on the 2 classes that both know" in found.note


def test_incomparable_versions_stop_nothing(version_factory: VersionFactory, tmp_path: Path):
    """Nothing published, one shared class, no test images, a broken champion: not worse, and it is said why."""
    assert _compare(tmp_path, _predictions(tmp_path, 0, 9)) is None
    version_factory(tmp_path)
    few = _compare(tmp_path, _predictions(tmp_path, 0, 9), ("red", "cat", "dog"))
    none = _compare(tmp_path, [])
    version_factory(tmp_path, number=2, wrong_scores=True)
    broken = _compare(tmp_path, _predictions(tmp_path, 0, 9))
    for found, why in ((few, "shares 1 of our 3"), (none, "no test images"), (broken, "does not answer")):
        assert not found.worse
        assert why in describe(found)
    assert broken.version == 2


_CHANGE = "python -m service.models --models"


@pytest.mark.parametrize(
    ("published", "policy", "said"),
    [
        ([1, 7], "{}", ["next python -m service --models"]),
        ([1, 7], '{"labels": {"stable": 1}}', ["live version 1 stays so", f"next {_CHANGE} unpin"]),
        ([1, 7], '{"versions": {"specific": [1]}}', ["live version 1 stays so", f"next {_CHANGE} latest 1"]),
        (
            [1, 3, 7],
            '{"versions": {"specific": [3]}, "labels": {"stable": 3}}',
            ["live version 3 stays so", f"next {_CHANGE} unpin", f"next {_CHANGE} latest 1"],
        ),
        ([7], '{"labels": {"stable": 6}}', ["live no version", f"next {_CHANGE} unpin"]),
        ([1, 7], "{", ["live nothing new", "next correct it: serving.json: expected JSON"]),
        ([1, 7, 8], "{}", ["live version 8, which was published meanwhile and is higher"]),
    ],
)
def test_it_is_said_how_a_version_goes_live(tmp_path: Path, published: list[int], policy: str, said: list[str]):
    """As a service reads serving.json, and with the commands that change it: those that are needed."""
    for number in published:
        (tmp_path / "tints" / str(number)).mkdir(parents=True)
    (tmp_path / "tints" / "serving.json").write_text(policy)
    told = train._next(Settings(tmp_path, tmp_path, "tints"), 7)
    shown = [f"{name} {text}".replace(f" {tmp_path}", "").replace(" tints", "") for name, text in told]
    assert len(shown) == len(said)
    assert all(line.startswith(start) for line, start in zip(shown, said, strict=True)), shown


def test_exit_code_4_and_nothing_published(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """`train --champion` against a better version: one line, 4, no directory; told to, it publishes and reports it.

    What was trained for the refused version is not trained again. A version that will not be live says so.
    """
    arguments = [
        "train", str(photos), "--models", str(tmp_path), "--name", "tints", "--cache", str(tmp_path / "cache"),
        "--strategy", "scratch", "--epochs", "2", "--side", "32", "--champion", "--engine", "openvino/f32",
    ]  # fmt: skip
    better = ChampionComparison(
        version=3, images=100, right_new=80, right_champion=95, only_new=1, only_champion=16, p_value=1e-4, worse=True
    )
    monkeypatch.setattr(champion, "compare", lambda *_, **__: better)
    assert main(arguments) == 4
    first = capsys.readouterr()
    assert first.err.count("\n") == 1
    assert "80 of 100 test images right against 95; 16 only by version 3" in first.err
    assert "nothing was published. --publish-anyway" in first.err
    assert not list((tmp_path / "tints").iterdir())
    (tmp_path / "tints" / "1").mkdir()
    (tmp_path / "tints" / "serving.json").write_text('{"labels": {"stable": 1}}')
    assert main([*arguments, "--publish-anyway"]) == 0
    curve = [line for line in first.out.splitlines() if line.startswith("epoch")]
    again = capsys.readouterr().out
    assert f"going on after epoch {curve[-1].split()[1]}," in again
    assert [line for line in again.splitlines() if line.startswith("epoch")] == curve[-1:]  # where it stands; no more
    assert "significantly worse than version 3" in again
    assert not list((tmp_path / "cache" / "runs").iterdir())
    assert "version 1 stays so" in again
    assert f"python -m service.models --models {tmp_path} unpin tints" in again
    assert read_version(tmp_path / "tints" / "2").manifest.champion == better
    page = (tmp_path / "tints" / "2" / "assets.extra" / "report" / "index.html").read_text(encoding="utf-8")
    assert "significantly worse than version 3: 80 of 100 test images" in page
    assert "keep version 3, which is significantly better" in page
