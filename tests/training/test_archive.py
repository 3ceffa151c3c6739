"""training.archive: a .zip is the same data as its folder, and an unsafe one writes nothing."""

import os
import stat
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from training import archive
from training.dataset import index
from training.errors import DataError


def pack(path: Path, names: list[str], *, prefix: str = "") -> Path:
    """A .zip with a small picture under each name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for number, name in enumerate(names):
            with opened.open(prefix + name, "w") as sink:
                Image.effect_noise((30, 30), 40 + number).save(sink, "PNG")
    return path


CLASSES = ["cat/1.png", "cat/deep/2.png", "dog/1.png"]


@pytest.mark.parametrize("prefix", ["", "pets/", "pets/v2/"])
def test_zip_of_class_folders(tmp_path, prefix):
    """Folders that only wrap the class folders are gone through; Apple's and hidden files are not there at all."""
    litter = ["__MACOSX/cat/._1.png", "cat/.hidden.png", "cat/Thumbs.db"]
    data = pack(tmp_path / "pets.zip", [*CLASSES, *litter], prefix=prefix)
    dataset = index(data, tmp_path / "cache")
    assert [image.path.relative_to(dataset.root).as_posix() for image in dataset.images] == CLASSES
    assert dataset.rejected == ()
    files = [file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert sorted(files) == ["1.png", "1.png", "2.png"]


def test_zip_of_split_folders(tmp_path):
    """Split folders in an archive, wrapped or not, give splits."""
    names = [f"{split}/{label}/1.png" for split in ("train", "val") for label in ("a", "b")]
    dataset = index(pack(tmp_path / "x.zip", names, prefix="top/"), tmp_path / "cache")
    assert dataset.class_names == ("a", "b")
    assert {image.split for image in dataset.images} == {"train", "validation"}


def test_backslashes_are_folders(tmp_path):
    """Archives of some Windows programs separate folders by backslashes."""
    dataset = index(pack(tmp_path / "x.zip", [name.replace("/", "\\") for name in CLASSES]), tmp_path / "cache")
    assert dataset.class_names == ("cat", "dog")


def test_unpacked_once_by_content(tmp_path):
    """The same archive is unpacked once, another one under the same name again."""
    data = pack(tmp_path / "x.zip", CLASSES)
    first = archive.unpack(data, tmp_path / "cache")
    mark = (first / "cat" / "1.png").stat().st_mtime_ns
    assert archive.unpack(data, tmp_path / "cache") == first
    assert (first / "cat" / "1.png").stat().st_mtime_ns == mark
    assert archive.unpack(pack(tmp_path / "x.zip", CLASSES[:2]), tmp_path / "cache") != first


def test_a_killed_unpacking_leaves_nothing_half(tmp_path):
    """What a dead process left is removed and never taken for the archive; a living one's is left alone."""
    cache = tmp_path / "cache"
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    dead, living = cache / f".unpacking-{pid}-x", cache / f".unpacking-{os.getppid()}-x"
    recent = cache / f".unpacking-{pid}-y"  # of a process of another container, maybe
    for folder in (dead, living, recent):
        folder.mkdir(parents=True)
    for folder in (dead, living):
        os.utime(folder, (0, 0))
    unpacked = archive.unpack(pack(tmp_path / "x.zip", CLASSES), cache)
    assert sorted(cache.iterdir()) == sorted([living, recent, unpacked])


@pytest.mark.parametrize("name", ["../evil.png", "cat/../../evil.png", "/evil.png", "C:\\evil.png", "..\\evil.png"])
def test_names_that_leave_the_folder(tmp_path, name):
    """A name that leads outside refuses the whole archive; nothing is written anywhere."""
    data = pack(tmp_path / "x.zip", [*CLASSES, name])
    with pytest.raises(DataError, match="leads out"):
        index(data, tmp_path / "cache")
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["x.zip"]


def test_links_are_refused(tmp_path):
    """A symbolic link could make a later entry leave the folder."""
    data = pack(tmp_path / "x.zip", CLASSES)
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(data, "a") as opened:
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="symbolic link"):
        index(data, tmp_path / "cache")


def test_bombs_are_refused_before_anything_is_written(tmp_path):
    """10 MB of zeros in 10 kB, against a limit of 1 MB."""
    data = tmp_path / "x.zip"
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("cat/1.bmp", bytes(10_000_000))
    assert data.stat().st_size < 20_000
    with pytest.raises(DataError, match="unpacks to 10000000 bytes, the limit is 1000000"):
        archive.unpack(data, tmp_path / "cache", limit_bytes=1_000_000)
    assert not any((tmp_path / "cache").iterdir())


def test_damaged_archives(tmp_path):
    """Neither a file that is no archive nor one with damaged contents leaves anything behind."""
    data = tmp_path / "x.zip"
    data.write_bytes(b"PK but no more")
    with pytest.raises(DataError, match=r"readable \.zip"):
        index(data, tmp_path / "cache")
    content = bytearray(pack(data, CLASSES).read_bytes())
    content[60:200] = bytes(140)
    data.write_bytes(content)
    with pytest.raises(DataError, match=r"readable \.zip"):
        index(data, tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())


def test_names_that_are_not_what_they_claim_to_be(tmp_path):
    """Some programs mark names as UTF-8 that are not."""
    data = tmp_path / "x.zip"
    with zipfile.ZipFile(data, "w") as opened:
        opened.writestr("cat/M\u00fc.png", b"x")
    data.write_bytes(data.read_bytes().replace("M\u00fc".encode(), b"M\xfc\xfc"))
    with pytest.raises(DataError, match=r"readable \.zip"):
        archive.unpack(data, tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())
