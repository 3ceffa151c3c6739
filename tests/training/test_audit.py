"""training.audit: what a test plants is found, what is not there is not, and all three forms of output agree."""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from rich.console import Console

from training import dataset, duplicates
from training.__main__ import main
from training.audit import findings, labels, layout, page, terminal
from training.audit.findings import Audit, Finding

# NumPy 2 about TensorFlow, in Keras' own code
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

_ROOT = Path(__file__).resolve().parents[2]
_COLOURS = {"amber": (200, 150, 30), "blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}
_TRAIN, _TEST = 80, 20
_FLIPPED_SHARE = 0.05


@dataclasses.dataclass(frozen=True)
class Planted:
    """A folder, and for each kind of finding the sets of relative paths that were planted."""

    root: Path
    defects: dict[str, set[frozenset[str]]]


def _picture(random: np.random.Generator, label: str, size: tuple[int, int] | None = None) -> Pillow.Image:
    """Blurred noise, tinted by its class: any two differ, and the classes can be told apart."""
    coarse = Pillow.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
    width, height = size or tuple(int(side) for side in random.integers(40, 91, 2))
    noise = coarse.resize((width, height), Pillow.Resampling.BICUBIC)
    return Pillow.blend(noise, Pillow.new("RGB", noise.size, _COLOURS[label]), 0.7)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """400 pictures of four classes in given splits, with defects of every kind."""
    root = tmp_path_factory.mktemp("planted") / "data"
    random = np.random.default_rng(3)
    names = list(_COLOURS)
    paths = []
    for side, count in (("train", _TRAIN), ("test", _TEST)):
        for label in names:
            (root / side / label).mkdir(parents=True)
            for number in range(count):
                paths.append(f"{side}/{label}/{number:03d}.jpg")
                _picture(random, label).save(root / paths[-1], quality=92)
    random.shuffle(paths)
    taken = iter(paths)
    defects: dict[str, set[frozenset[str]]] = {kind: set() for kind in _kinds()}

    def plant(kind: str, *files: str) -> None:
        defects[kind].add(frozenset(files))

    for path in [next(taken) for _ in range(round(_FLIPPED_SHARE * len(paths)))]:
        side, label, name = path.split("/")
        wrong = f"{side}/{random.choice([other for other in names if other != label])}/flipped-{label}-{name}"
        (root / path).rename(root / wrong)
        plant("label-errors", wrong)
    for path in [next(taken) for _ in range(6)]:
        (root / path).write_bytes((root / path).read_bytes()[:-300])
        plant("unreadable", path)
    for path in [next(taken) for _ in range(6)]:
        side, label, name = path.split("/")
        other = f"{'test' if side == 'train' else 'train'}/{label}/again-{name}"
        shutil.copyfile(root / path, root / other)
        plant("split-leaks", path, other)
        plant("identical", path, other)
    for path in [next(taken) for _ in range(6)]:
        side, label, name = path.split("/")
        other = f"{'test' if side == 'train' else 'train'}/{label}/scaled-{name}"
        picture = Pillow.open(root / path)
        picture.resize((picture.width * 2, picture.height * 2)).save(root / other, quality=80)
        plant("split-leaks", path, other)
        plant("near-identical", path, other)
    for path in [next(taken) for _ in range(4)]:
        side, label, name = path.split("/")
        other = f"{side}/{names[(names.index(label) + 1) % 4]}/both-{name}"
        shutil.copyfile(root / path, root / other)
        plant("two-labels", path, other)
        plant("identical", path, other)
    for label in names:
        tiny, long, blank, cmyk = (f"train/{label}/{kind}.png" for kind in ("tiny", "long", "blank", "cmyk"))
        _picture(random, label, (24, 40)).save(root / tiny)
        _picture(random, label, (400, 60)).save(root / long)
        Pillow.new("RGB", (64, 64), _COLOURS[label]).save(root / blank)
        _picture(random, label).convert("CMYK").save(root / cmyk, "TIFF")
        for kind, path in (("tiny", tiny), ("extreme-aspect", long), ("blank", blank), ("unusual-mode", cmyk)):
            plant(kind, path)
    return Planted(root, defects)


@pytest.fixture(scope="module")
def report(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    """What `audit` says of the planted folder with a network of random weights: JSON and HTML."""
    folder = tmp_path_factory.mktemp("audit")
    arguments = ["--backbone", "mobilenet:0.25", "--weights", "none", "--cache", str(folder / "cache")]
    files = ["--json", str(folder / "audit.json"), "--html", str(folder / "audit.html")]
    assert main(["audit", str(planted.root), *arguments, *files]) == 0
    told = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    return told, (folder / "audit.html").read_text(encoding="utf-8")


def _kinds() -> set[str]:
    """Every kind of finding, from the table in docs/audit.md."""
    text = (_ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE))


def _found(told: dict, kind: str) -> list[frozenset[str]]:
    examples = [one["examples"] for one in told["findings"] if one["kind"] == kind]
    return [frozenset(file["path"] for file in example["files"]) for example in (examples or [[]])[0]]


def test_planted_defects_are_found(planted: Planted, report: tuple[dict, str]):
    """Recall and precision of everything but label errors are 1."""
    told, _ = report
    for kind, expected in sorted(planted.defects.items()):
        if kind == "label-errors":
            continue
        found = set(_found(told, kind))
        hits = len(found & expected)
        print(f"{kind:<16} planted {len(expected):>3}, found {len(found):>3}, of these planted {hits:>3}")  # noqa: T201
        assert found == expected, kind


def test_planted_label_errors_are_found(planted: Planted, report: tuple[dict, str]):
    """Of as many suspects as labels were flipped, counting those that are missing as wrong, 0.6 are flipped ones."""
    told, _ = report
    ranked = _found(told, "label-errors")
    expected = planted.defects["label-errors"]
    at_planted = sum(one in expected for one in ranked[: len(expected)]) / len(expected)
    hits = sum(one in expected for one in ranked)
    print(  # noqa: T201
        f"label-errors: planted {len(expected)}, listed {len(ranked)}, of these planted {hits}; precision at "
        f"{len(expected)} {at_planted:.2f}, of the list {hits / len(ranked):.2f}; recall {hits / len(expected):.2f}"
    )
    assert at_planted >= 0.6


def test_json_has_the_documented_layout(planted: Planted, report: tuple[dict, str]):
    """Counts, severities and the quarantine list are there, in the fields that docs/audit.md names."""
    told, _ = report
    text = (_ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    documented = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL).group(1))
    assert told.keys() == documented.keys()
    assert told["data"].keys() == documented["data"].keys()
    assert told["schema_version"] == documented["schema_version"] == layout.SCHEMA_VERSION
    for finding in told["findings"]:
        assert finding.keys() == documented["findings"][0].keys()
        assert finding["severity"] in findings.SEVERITIES
        assert finding["count"] > 0
        assert finding["examples"]
    severities = [findings.SEVERITIES.index(finding["severity"]) for finding in told["findings"]]
    assert severities == sorted(severities)
    assert {frozenset([one["path"]]) for one in told["quarantine"]} == planted.defects["unreadable"]
    assert all(one.keys() == documented["quarantine"][0].keys() for one in told["quarantine"])
    assert told["data"]["images"] == sum(told["data"]["classes"].values()) == sum(told["data"]["splits"].values())


def test_page_stands_alone(report: tuple[dict, str]):
    """Every finding has a heading; pictures are inside, are JPEGs, few enough, and nothing is fetched."""
    told, html = report
    for finding in told["findings"]:
        assert f'id="{finding["kind"]}"' in html
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert 50 < html.count("data:image/jpeg;base64,/9j/") == html.count("<img ") <= 400
    assert len(html) < 2_000_000


def test_a_clean_folder_has_no_findings(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Nothing is found where nothing was planted (the fixture has 20 pictures a class), and it is said so."""
    assert main(["audit", str(photos), "--no-label-check", "--cache", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "60 images in 3 classes: blue 20, green 20, red 20" in said
    assert "nothing suspicious was found" in said


def test_class_sizes(photos: Path, tmp_path: Path):
    """Small classes count different pictures, and the ratio of the largest to the smallest decides how bad it is."""
    for label, keep in (("blue", 20), ("green", 5), ("red", 1)):
        shutil.copytree(photos / label, tmp_path / label)
        for path in sorted((tmp_path / label).iterdir())[keep:]:
            path.unlink()
    one = next((tmp_path / "red").iterdir())
    shutil.copyfile(one, one.with_stem("again"))
    found = {one.kind: one for one in _look(tmp_path)}
    assert [one.note for one in found["few-images"].examples] == [
        "red: 1 different picture",
        "green: 5 different pictures",
    ]
    assert (found["uneven-classes"].severity, found["uneven-classes"].count) == ("warning", 2)
    assert found["uneven-classes"].examples[0].note == "blue has 20, red has 2: 10.0 to 1"


def test_groups_across_given_splits(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """What --group-regex holds together and the given splits part is an error; a regex of no use is exit 2."""
    for label in ("blue", "green"):
        for number, path in enumerate(sorted((photos / label).iterdir())):
            target = tmp_path / ("test" if number < 6 else "train") / label / f"p{number % 8}-{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    arguments = ["audit", str(tmp_path), "--no-label-check", "--cache", str(tmp_path / "cache"), "--group-regex"]
    assert main([*arguments, r"(p\d)-", "--json", str(tmp_path / "audit.json")]) == 0
    told = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert [one["count"] for one in told["findings"] if one["kind"] == "group-leaks"] == [6]
    assert all(one["kind"] != "split-leaks" for one in told["findings"])
    for regex, expected in (("(", "regular expression"), ("p1", "captures nothing"), ("(q)", "matches none")):
        capsys.readouterr()
        assert main([*arguments, regex]) == 2
        assert expected in capsys.readouterr().err


def test_size_is_that_of_the_upright_picture(tmp_path: Path):
    """EXIF that turns a picture swaps its sides, in every format that cameras write."""
    random, exif = np.random.default_rng(0), Pillow.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "a.tiff", "a.webp"):
        (tmp_path / name[0]).mkdir(exist_ok=True)
        _picture(random, "red", (90, 40)).save(tmp_path / "a" / name, exif=exif)
    (tmp_path / "b").mkdir()
    _picture(random, "red", (90, 40)).save(tmp_path / "b" / "b.png")
    sizes = {one.path.name: (one.width_px, one.height_px) for one in dataset.index(tmp_path, tmp_path).images}
    assert sizes == {"a.jpg": (40, 90), "a.tiff": (40, 90), "a.webp": (40, 90), "b.png": (90, 40)}


def test_missing_weights_do_not_end_an_audit(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Without weights everything else is looked for, and it is said what was not; a wrong backbone is exit 2."""
    from training import backbones  # noqa: PLC0415 - imports Keras, which other tests here need not wait for
    from training.errors import WeightsUnavailable  # noqa: PLC0415 - beside it

    def fail(*_: object) -> None:
        raise WeightsUnavailable("no weights, no network")

    monkeypatch.setattr(backbones, "load", fail)
    assert main(["audit", str(photos), "--cache", str(tmp_path)]) == 0
    assert "label errors were not looked for: no weights, no network" in capsys.readouterr().out
    assert main(["audit", str(photos), "--cache", str(tmp_path), "--backbone", "resnet51"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One line, and nothing of publishing, which an audit never does."""
    arguments = ["audit", str(photos), "--cache", str(tmp_path / "cache"), "--no-label-check"]
    assert main([*arguments, "--json", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: Is a directory ({tmp_path})\n"


def test_file_names_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Brackets are no markup of the terminal's, angle brackets none of HTML's."""
    random = np.random.default_rng(0)
    for label in ("a", "b [red]"):
        (tmp_path / label).mkdir()
        for number in range(2):
            _picture(random, "red").save(tmp_path / label / f"<b>{number}[bold].png")
    shutil.copyfile(tmp_path / "a" / "<b>0[bold].png", tmp_path / "b [red]" / "copy.png")
    audit = Audit(dataset.index(tmp_path, tmp_path), tuple(_look(tmp_path)))
    console = Console(highlight=False, soft_wrap=True, width=200)
    terminal.show(audit, console)
    terminal.brief(audit, console)
    said = capsys.readouterr().out
    assert said.count("a/<b>0[bold].png = b [red]/copy.png: labelled a and b [red]") == 2
    html = page.section(audit)
    assert "<b>0" not in html
    assert "&lt;b&gt;0[bold].png" in html


@given(st.integers(2, 5), st.integers(1, 30), st.integers(0, 10**6))
def test_suspects_are_claimed_by_another_class(classes, each, seed):
    """Whatever the scores: a suspect's other class has more than its label has, and than that class usually has."""
    random = np.random.default_rng(seed)
    given_labels = random.permutation(np.repeat(np.arange(classes), each))
    scores = random.dirichlet(np.full(classes, 0.3), len(given_labels)).astype(np.float32)
    found = labels.suspects(scores, given_labels, np.ones(len(given_labels), bool))
    assert len({one.position for one in found}) == len(found)
    assert [one.margin for one in found] == sorted((one.margin for one in found), reverse=True)
    for one in found:
        row, label = scores[one.position], given_labels[one.position]
        assert one.suggested != label
        assert one.margin == pytest.approx(row[one.suggested] - row[label])
        assert one.margin > 0
        assert row[one.suggested] >= scores[given_labels == one.suggested, one.suggested].mean() - 1e-6


def test_a_class_that_is_always_doubted_is_not_all_wrong():
    """Thresholds per class: a class whose images a head gives 0.45 on average is not suspected as a whole."""
    given_labels = np.repeat([0, 1], 50)
    scores = np.where(given_labels[:, None] == [0, 1], 0.9, 0.1).astype(np.float32)
    scores[50:] = (0.55, 0.45)
    scores[99] = (0.95, 0.05)
    assert [one.position for one in labels.suspects(scores, given_labels, np.ones(len(given_labels), bool))] == [99]


def test_what_a_head_was_trained_on_is_not_suspected():
    """The only picture of a class is in every fold's fit: it is no suspect, and its class claims nobody."""
    given_labels = np.array([0] * 20 + [1] * 20 + [2])
    scores = np.where(given_labels[:, None] == [0, 1, 2], 0.9, 0.05).astype(np.float32)
    scores[3] = (0.1, 0.0, 0.9)
    scores[4] = (0.1, 0.9, 0.0)
    scores[40] = (0.9, 0.1, 0.0)
    found = labels.suspects(scores, given_labels, np.arange(41) < 40)
    assert [(one.position, one.suggested) for one in found] == [(4, 1)]
    assert labels.suspects(scores, given_labels, np.zeros(41, bool)) == []


def test_audit_of_four_classes(shared: Path):
    """The 38 byte-identical pairs and at least 20 of the 23 near-identical ones of its SOURCE.md, and no error."""
    found = {one.kind: one for one in _look(shared / "data" / "four-classes")}
    assert found["identical"].count == 38
    assert found["near-identical"].count >= 20
    near = {
        pair
        for one in found["near-identical"].examples
        for pair in combinations(sorted(file.path for file in one.files), 2)
    }
    hashed = dict(_hashes(shared / "data" / "four-classes"))
    documented = {pair for pair in combinations(sorted(hashed), 2) if _alike(hashed[pair[0]], hashed[pair[1]])}
    print(f"near-identical: {len(documented & near)} of {len(documented)} by the plain hash")  # noqa: T201
    assert len(documented) == 23
    assert len(documented & near) >= 20
    assert all(one.severity != "error" for one in found.values())


def _hashes(root: Path) -> Iterator[tuple[str, tuple[int, bytes]]]:
    """The difference hash of the whole picture, which SOURCE.md counted near-identical pairs with, and the bytes."""
    for path in sorted(root.glob("*/*.jpg")):
        grey = Pillow.open(path).convert("L").resize((9, 8), Pillow.Resampling.LANCZOS)
        small = np.asarray(grey, np.int16)
        bits = np.packbits(small[:, 1:] > small[:, :-1]).tobytes()
        yield path.relative_to(root).as_posix(), (int.from_bytes(bits), path.read_bytes())


def _alike(one: tuple[int, bytes], other: tuple[int, bytes]) -> bool:
    return one[1] != other[1] and (one[0] ^ other[0]).bit_count() <= 3


def _look(root: Path) -> list[Finding]:
    indexed = dataset.index(root, root)
    groups = duplicates.group(indexed.images)
    return findings.look(indexed, groups, groups)
