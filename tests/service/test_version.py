"""service/version.py: only what was published whole, and is still what was published, is taken for a version."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from protos.manifest_pb2 import Manifest
from service.errors import BrokenVersion
from service.published import list_versions, valid_name
from service.version import (
    GOLDENS,
    MANIFEST,
    UNFINISHED,
    hash_files,
    next_number,
    publish,
    read_version,
    remove_unfinished,
    verify_files,
    write_manifest,
)


def _unfinished(models: Path, number: int = 1, name: str = "pets", pid: object = None, **fields: object) -> Path:
    """A version directory with three small files; a SavedModel is of no concern here."""
    folder = models / name / f"{UNFINISHED}{pid or os.getpid()}-{number}"
    for file in ("saved_model.pb", "variables/variables.index", f"{GOLDENS}/goldens.json"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(f'{{"goldens": [{{"image": "{file}"}}]}}', encoding="utf-8")
    manifest = Manifest(schema_version=1, name=name, version=number, class_names=["cat", "dog"])
    manifest.image.side_px, manifest.image.decode_version = 32, 1
    manifest.image.resize, manifest.image.resample = "squash", "bilinear"
    manifest.MergeFrom(Manifest(**fields))
    write_manifest(folder, manifest)
    return folder


@pytest.fixture
def published(tmp_path):
    """A published version."""
    return publish(_unfinished(tmp_path), tmp_path, "pets")


def test_a_published_version_reads_back_and_verifies(published: Path, tmp_path: Path) -> None:
    """After one rename the directory is listed under its number, with the manifest that was written."""
    version = read_version(published)
    verify_files(version)
    assert (version.name, version.number, version.spec.side_px) == ("pets", 1, 32)
    assert len(version.goldens().goldens) == 1
    assert list_versions(tmp_path) == {"pets": [1]}
    assert [folder.name for folder in (tmp_path / "pets").iterdir()] == ["1"]


def test_the_manifest_hashes_every_other_file(published: Path) -> None:
    """SHA-256 by relative path, in folders too; the manifest cannot contain itself."""
    text = json.loads((published / MANIFEST).read_text(encoding="utf-8"))
    assert text["files_sha256"] == hash_files(published)
    assert sorted(text["files_sha256"]) == [f"{GOLDENS}/goldens.json", "saved_model.pb", "variables/variables.index"]


def test_a_tampered_byte_is_found(published: Path) -> None:
    """One bit of one file differs: altered, and the file is named."""
    file = published / "variables" / "variables.index"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    with pytest.raises(BrokenVersion, match=r"^1 file\(s\) altered: variables/variables\.index$"):
        verify_files(read_version(published))


def test_a_missing_file_is_found(published: Path) -> None:
    """A file that is gone is missed by name."""
    (published / "saved_model.pb").unlink()
    with pytest.raises(BrokenVersion, match=r"^1 file\(s\) missing: saved_model\.pb$"):
        verify_files(read_version(published))


def test_an_extra_file_is_found(published: Path) -> None:
    """A file that nobody published is refused, wherever it is."""
    (published / "variables" / "more").write_bytes(b"")
    with pytest.raises(BrokenVersion, match=r"^1 file\(s\) not in the manifest: variables/more$"):
        verify_files(read_version(published))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema_version": 2}, "expected manifest schema 1-1, found 2"),
        ({"schema_version": 0}, "expected manifest schema 1-1, found 0"),
        ({"class_names": ["cat"]}, "expected at least 2 class names, found 1"),
        ({"image": {"side_px": 32}}, "the image spec cannot be served: resize must be one of squash, crop"),
        (
            {"image": {"side_px": 32, "resize": "squash", "resample": "bilinear", "decode_version": 9}},
            "decode_version must be 1-2",
        ),
        ({"image": {"side_px": 4, "resize": "squash", "resample": "box"}}, "side_px must be 8-4096. Received: 4"),
        ({"version": "many"}, "the manifest cannot be read"),
    ],
    ids=["newer schema", "no schema", "one class", "no resize", "other decode", "tiny side", "wrong type"],
)
def test_a_manifest_that_cannot_be_served_is_refused(published: Path, change: dict[str, object], says: str) -> None:
    """The refusal says what was expected."""
    path = published / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(BrokenVersion, match=re.escape(says)):
        read_version(published)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"null"], ids=["empty", "cut", "a list", "not text", "null"]
)
def test_a_manifest_that_is_none_is_refused(published: Path, content: bytes) -> None:
    """Whatever stands in the file, the answer is BrokenVersion."""
    (published / MANIFEST).write_bytes(content)
    with pytest.raises(BrokenVersion):
        read_version(published)


def test_no_manifest_is_refused_without_its_path(tmp_path: Path) -> None:
    """The message reaches clients through /readyz, so it names the file and not where it is."""
    (tmp_path / "1").mkdir()
    with pytest.raises(BrokenVersion, match=r"^expected a manifest at manifest\.json, found no file$"):
        read_version(tmp_path / "1")


def test_a_manifest_that_may_not_be_read_is_refused_without_its_path(published: Path) -> None:
    """An error of the file system, too, keeps the path to itself."""
    (published / MANIFEST).unlink()
    (published / MANIFEST).mkdir()
    with pytest.raises(BrokenVersion) as refused:
        read_version(published)
    assert "the manifest cannot be read" in str(refused.value)
    assert str(published) not in str(refused.value)


def test_unknown_fields_of_a_manifest_are_ignored(published: Path) -> None:
    """A later Graft may say more under the same schema."""
    path = published / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"later": 1}), encoding="utf-8")
    assert read_version(published).number == 1


def test_a_version_without_goldens_is_refused(tmp_path: Path) -> None:
    """A version that cannot prove itself must not serve."""
    folder = _unfinished(tmp_path)
    (folder / GOLDENS / "goldens.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BrokenVersion, match="expected golden images, found none"):
        read_version(folder).goldens()


def test_only_positive_integers_in_folders_with_valid_names_are_versions(tmp_path: Path) -> None:
    """Half-written, hidden, misnamed and plain files are never listed."""
    for name in (
        "pets/1",
        "pets/12",
        "pets/03",
        "pets/0",
        "pets/-1",
        "pets/1.5",
        "pets/latest",
        "pets/.unfinished-7-2",
    ):
        (tmp_path / name).mkdir(parents=True)
    for name in (".hidden/1", "a b/1", "cats/x", "dogs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pets" / "99").write_text("a file", encoding="utf-8")
    (tmp_path / "README").write_text("a file", encoding="utf-8")
    assert list_versions(tmp_path) == {"pets": [1, 12]}
    assert next_number(tmp_path, "pets") == 13
    assert next_number(tmp_path, "cats") == 1


def test_no_models_directory_is_no_models(tmp_path: Path) -> None:
    """A directory that is not there yet, or is a file, holds nothing."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert list_versions(tmp_path / "nowhere") == list_versions(tmp_path / "file") == {}


@pytest.mark.parametrize(
    ("name", "valid"),
    [("pets", True), ("p-1_2.x", True), ("7up", True), ("a" * 100, True), ("a" * 101, False)]
    + [(name, False) for name in ("", ".pets", "-x", "a/b", "a b", "ü", "a\n", "..")],
)
def test_names_of_models_are_safe_in_paths_and_urls(name: str, valid: bool) -> None:
    """Letters, digits, dot, underscore and dash, not first but for letters and digits, at most 100."""
    assert valid_name(name) is valid


def test_a_directory_that_is_not_what_its_manifest_says_is_not_published(tmp_path: Path) -> None:
    """Altered between manifest and rename: nothing becomes visible."""
    folder = _unfinished(tmp_path)
    (folder / "saved_model.pb").write_text("other", encoding="utf-8")
    with pytest.raises(BrokenVersion, match="altered"):
        publish(folder, tmp_path, "pets")
    assert list_versions(tmp_path) == {}


def test_a_number_is_published_once(published: Path, tmp_path: Path) -> None:
    """The second comes too late, keeps its directory, and does not touch the first."""
    before = hash_files(published)
    late = _unfinished(tmp_path, class_names=["bird"])
    with pytest.raises(FileExistsError, match="version 1 of pets exists already"):
        publish(late, tmp_path, "pets")
    assert late.is_dir()
    assert hash_files(published) == before


_RACER = """
import sys
from pathlib import Path
from service.version import publish
sys.stdin.readline()
try:
    publish(Path(sys.argv[1]), Path(sys.argv[2]), "pets")
except FileExistsError:
    print("late")
else:
    print("first")
"""


def test_of_many_that_publish_one_number_at_once_one_wins(tmp_path: Path) -> None:
    """Four processes race for version 1: one is published, whole, and the others are told."""
    root = Path(__file__).resolve().parents[2]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, _unfinished(tmp_path, pid=f"{os.getpid()}-{number}"), tmp_path],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate()[0].strip() for racer in racers]
    assert sorted(said) == ["first", "late", "late", "late"]
    verify_files(read_version(tmp_path / "pets" / "1"))


def test_what_a_killed_trainer_left_is_removed(tmp_path: Path) -> None:
    """Unfinished directories of processes that are gone go; those of the living, and versions, stay."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, alive = _unfinished(tmp_path, pid=ended.pid), _unfinished(tmp_path, number=2)
    nameless = tmp_path / "pets" / f"{UNFINISHED}x"
    nameless.mkdir()
    finished = publish(_unfinished(tmp_path, number=3), tmp_path, "pets")
    remove_unfinished(tmp_path, "pets")
    assert not dead.exists()
    assert not nameless.exists()
    assert alive.is_dir()
    assert finished.is_dir()
    remove_unfinished(tmp_path, "no such model")
