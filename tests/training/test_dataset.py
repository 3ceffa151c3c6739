"""training.dataset and training.listing: every form of DATA, and what happens to files that are not images."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from training.dataset import Dataset, index
from training.errors import DataError

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def draw(path: Path, seed: int = 0) -> Path:
    """A small picture of its own at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    Pillow.fromarray(noise).resize((40, 30), Pillow.Resampling.BICUBIC).save(path)
    return path


def draw_classes(root: Path, *labels: str, count: int = 2) -> None:
    """`count` pictures in a folder for each label."""
    for at, label in enumerate(labels):
        for number in range(count):
            draw(root / label / f"{number}.png", 100 * at + number)


def names(dataset: Dataset) -> list[tuple[str, str, str | None]]:
    """What was found, without absolute paths."""
    return [(image.path.relative_to(dataset.root).as_posix(), image.label, image.split) for image in dataset.images]


def test_class_folders_nested_or_not(tmp_path):
    """A folder's images belong to its class at any depth, sorted by path, and progress counts every file."""
    root = tmp_path / "pets"
    draw(root / "dog" / "b.jpg", 1)
    draw(root / "cat" / "indoors" / "old" / "a.png", 2)
    draw(root / "cat" / "z.webp", 3)
    progress = []
    dataset = index(root, tmp_path / "cache", on_progress=lambda done, total: progress.append((done, total)))
    assert names(dataset) == [
        ("cat/indoors/old/a.png", "cat", None),
        ("cat/z.webp", "cat", None),
        ("dog/b.jpg", "dog", None),
    ]
    assert dataset.class_names == ("cat", "dog")
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert not (tmp_path / "cache").exists()


def test_what_is_kept_of_an_image(tmp_path):
    """The hash is that of the bytes; the thumbnail is 16 x 16 bytes and dhash fits in 64 bits and sees brightness."""
    draw_classes(tmp_path, "a", count=1)
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (60, 1))
    (tmp_path / "b").mkdir()
    Pillow.fromarray(ramp).save(tmp_path / "b" / "ramp.png")
    Pillow.fromarray(ramp[:, ::-1]).save(tmp_path / "b" / "pmar.png")
    falling, rising = index(tmp_path, tmp_path).images[1:]
    assert rising.dhash == 2**64 - 1
    assert falling.dhash == 0
    assert len(rising.thumbnail) == 256
    assert rising.thumbnail[0] < rising.thumbnail[15]
    assert len(rising.sha256) == 64


def test_unreadable_files_are_listed_and_left_out(tmp_path):
    """What the service would refuse is rejected with the service's code; the rest is indexed all the same."""
    draw_classes(tmp_path, "a", "b")
    whole = draw(tmp_path / "a" / "whole.jpg").read_bytes()
    (tmp_path / "a" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "a" / "empty.png").write_bytes(b"")
    (tmp_path / "b" / "page.jpg").write_bytes(b"<html>not found</html>")
    (tmp_path / "b" / "no-extension").write_bytes(whole)
    (tmp_path / "b" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    draw(tmp_path / "loose.png")
    dataset = index(tmp_path, tmp_path)
    codes = {rejected.path.name: rejected.code for rejected in dataset.rejected}
    assert codes == {
        "truncated.jpg": "CORRUPT_IMAGE",
        "empty.png": "EMPTY_IMAGE",
        "page.jpg": "UNSUPPORTED_FORMAT",
        "gone.jpg": "NOT_FOUND",
        "loose.png": "NO_LABEL",
    }
    assert all(rejected.reason for rejected in dataset.rejected)
    assert len(dataset.images) == 6


def test_a_folder_that_cannot_be_read_is_listed(tmp_path, monkeypatch):
    """Its images are missing, so it is said; the others are used."""
    draw_classes(tmp_path, "a", "b")
    draw(tmp_path / "a" / "closed" / "x.png")
    listed = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    dataset = index(tmp_path, tmp_path)
    assert [rejected.path for rejected in dataset.rejected] == [tmp_path / "a" / "closed"]
    assert dataset.rejected[0].code == "UNREADABLE"
    assert "a folder that can be read" in dataset.rejected[0].reason
    assert len(dataset.images) == 4


def test_names_that_are_no_utf8_can_be_shown(tmp_path):
    """Old disks have them; they are read, and shown so that they can be written anywhere."""
    draw_classes(tmp_path, "a", "b")
    name = os.fsdecode(b"M\xfcller.png")
    draw(tmp_path / "a" / name)
    dataset = index(tmp_path, tmp_path)
    shown = {dataset.relative(image.path) for image in dataset.images}
    assert len(shown) == 5
    assert "a/M\\xfcller.png" in shown


def test_litter_is_ignored_quietly(tmp_path):
    """Hidden files, systems' litter and plain text files are neither images nor rejected."""
    draw_classes(tmp_path, "a", "b")
    for name in ("a/.DS_Store", "a/Thumbs.db", "b/desktop.ini", "b/notes.txt", "b/labels.CSV", "README.md"):
        (tmp_path / name).write_text("x")
    draw(tmp_path / ".thumbnails" / "x.png")
    draw(tmp_path / "a" / ".cache" / "x.png")
    draw(tmp_path / "__MACOSX" / "x.png")
    dataset = index(tmp_path, tmp_path)
    assert (len(dataset.images), dataset.rejected, dataset.class_names) == (4, (), ("a", "b"))


def test_a_loop_of_links_ends(tmp_path):
    """Links to folders are followed, each folder once."""
    draw_classes(tmp_path, "a", "b")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    assert len(index(tmp_path, tmp_path).images) == 4


@pytest.mark.parametrize("word", ["val", "valid", "validation", "Validation"])
def test_split_folders(tmp_path, word):
    """train, val and test folders give the split; the classes are one level down."""
    for at, folder in enumerate(("train", word, "test")):
        draw(tmp_path / folder / "cat" / "1.png", at)
        draw(tmp_path / folder / "dog" / "1.png", at + 10)
    dataset = index(tmp_path, tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert {split for _, _, split in names(dataset)} == {"train", "validation", "test"}


def test_a_class_may_be_called_train(tmp_path):
    """One split's name beside other folders is a class; two of them beside other folders are refused."""
    draw_classes(tmp_path, "train", "tram")
    assert index(tmp_path, tmp_path).class_names == ("train", "tram")
    draw_classes(tmp_path, "test")
    with pytest.raises(DataError, match="beside others \\(tram\\)"):
        index(tmp_path, tmp_path)


def test_csv(tmp_path):
    """Relative and absolute paths, optional split, missing files rejected, a repeated row counted once."""
    near, far = draw(tmp_path / "in" / "images" / "1.png", 1), draw(tmp_path / "elsewhere" / "2.png", 2)
    table = near.parents[1] / "labels.csv"
    rows = ["Path,Label,Split,width", "images/1.png, cat,train,3", f"{far},dog,,4", "images/9.png,cat,test,5"]
    table.write_text("\ufeff" + "\r\n".join([*rows, rows[1]]) + "\r\n", encoding="utf-8")
    dataset = index(table, tmp_path / "cache")
    assert {(image.path, image.label, image.split) for image in dataset.images} == {
        (near, "cat", "train"),
        (far, "dog", None),
    }
    assert [(rejected.path.name, rejected.code) for rejected in dataset.rejected] == [("9.png", "NOT_FOUND")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\na.png,cat\n", "expected the columns path,label.*found: file,class"),
        ("path;label\na.png;cat\n", "found: path;label"),
        ("", "found: nothing"),
        ("path,label\na.png,\n", "line 2: expected a path and a label"),
        ("path,label\na.png\n", "line 2: expected a path and a label"),
        ("path,label,split\na.png,cat,train\nb.png,cat,dev\n", "line 3: expected the split.*'dev'"),
        ("path,label\n", "expected images"),
        ('path,label,notes\na.png,cat,"12 inch\nb.png,cat,\n', "unexpected end of data"),
        ('path,label,notes\na.png,cat,"12 inch\nb.png,cat,more"\n', "each row on one line"),
        ('path,label\na.png,cat,"12 inch\nb.png,cat,more"\n', "each row on one line"),
        ("path,label\na\xff.png,cat\n", "UTF-8"),
    ],
)
def test_csv_that_cannot_be_used(tmp_path, text, message):
    """Each mistake in a CSV is named, with the line where it is one row's."""
    table = tmp_path / "labels.csv"
    table.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        index(table, tmp_path)


def test_too_little_to_train_on(tmp_path):
    """No such place, no folder, no image, one class, an unreadable class: each has an error that names it."""
    with pytest.raises(DataError, match="there is nothing"):
        index(tmp_path / "absent", tmp_path)
    with pytest.raises(DataError, match="found no folder"):
        index(tmp_path, tmp_path)
    (tmp_path / "cats").mkdir()
    with pytest.raises(DataError, match="expected images"):
        index(tmp_path, tmp_path)
    draw_classes(tmp_path, "cats")
    with pytest.raises(DataError, match=r"at least two classes.*'cats'"):
        index(tmp_path, tmp_path)
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dogs" / "1.jpg").write_bytes(b"what")
    with pytest.raises(DataError, match=r"no readable one in: dogs.*1\.jpg"):
        index(tmp_path, tmp_path)
    (tmp_path / "notes.xls").write_bytes(b"what")
    with pytest.raises(DataError, match=r"expected a folder, a \.csv or a \.zip"):
        index(tmp_path / "notes.xls", tmp_path)


def test_class_names_must_be_printable(tmp_path):
    """A class that a manifest could not name is refused before hours of training, not after."""
    draw_classes(tmp_path, "a", "b\n")
    with pytest.raises(DataError, match="printable"):
        index(tmp_path, tmp_path)


def test_fingerprint_follows_content_not_names(tmp_path):
    """Renaming a file keeps the fingerprint; moving it to another class changes it."""
    draw_classes(tmp_path, "a", "b")
    before = index(tmp_path, tmp_path).sha256
    (tmp_path / "a" / "0.png").rename(tmp_path / "a" / "7.png")
    assert index(tmp_path, tmp_path).sha256 == before
    (tmp_path / "a" / "7.png").rename(tmp_path / "b" / "7.png")
    assert index(tmp_path, tmp_path).sha256 != before


@pytest.mark.skipif(not SHARED.exists(), reason="../shared, with real photos, is absent")
def test_real_photos():
    """All 808 photos of four-classes are read."""
    dataset = index(SHARED / "data" / "four-classes", Path("unused"))
    assert len(dataset.images) == 808
    assert dataset.rejected == ()
    assert dataset.class_names == ("cats", "dogs", "horses", "humans")
