"""Which files a DATA argument names, with label and split; no image is opened here.

Owns the forms of DATA: a folder of class folders, split folders of class folders, and a CSV. Archives are unpacked by
training/archive.py; reading the images is training/dataset.py.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from training.errors import DataError

SPLIT_WORDS: Final = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Folder names and CSV words, lower-case, and the split that each one means."""

_IMAGE_SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif"),
    *(".tif", ".tiff", ".bmp", ".dib", ".heic", ".avif"),
)
_OTHER_SUFFIXES: Final = (
    *(".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg"),
    *(".log", ".html", ".htm", ".py", ".ipynb", ".db", ".lnk", ".url", ".npy", ".npz", ".pkl", ".pt", ".h5"),
)
_OTHER_NAMES: Final = frozenset(
    ["__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found", "icon\r"]
)


@dataclass(frozen=True)
class Listed:
    """One file that should be an image. `split` is "train", "validation", "test" or None where DATA does not say."""

    path: Path
    label: str
    split: str | None


@dataclass(frozen=True)
class Listing:
    """What DATA names.

    Attributes:
        root: the folder that paths are relative to.
        files: sorted by path.
        labels: every class named, also one without files.
        unlabelled: image files that lie outside every class folder.
    """

    root: Path
    files: tuple[Listed, ...]
    labels: frozenset[str]
    unlabelled: tuple[Path, ...] = ()


def list_folder(root: Path, *, unwrap: bool = False) -> Listing:
    """Lists class folders, or train/val/test folders of class folders.

    The names decide: where every folder at the top is called like a split and one of them is train, they are splits.

    Args:
        root: the folder.
        unwrap: go down through single folders that only hold folders, as archives often have.

    Raises:
        DataError: no folders, or split folders mixed with others.
    """
    while unwrap and (inner := _only_folder(root)) is not None:
        root = inner
    folders = _folders(root)
    if not folders:
        raise DataError(f"expected class folders in {root}, one per class with its images; found no folder")
    splits = {SPLIT_WORDS[folder.name.lower()] for folder in folders if folder.name.lower() in SPLIT_WORDS}
    others = [folder.name for folder in folders if folder.name.lower() not in SPLIT_WORDS]
    if "train" not in splits or (others and len(splits) == 1):  # a class may be called train, beside bus and tram
        return _listing(root, [(folder, None) for folder in folders], [root])
    if others:
        raise DataError(
            f"{root} has split folders ({', '.join(sorted(splits))}) beside others ({', '.join(others[:5])}); expected "
            "class folders only, or split folders only"
        )
    classes = [(inner, SPLIT_WORDS[folder.name.lower()]) for folder in folders for inner in _folders(folder)]
    if not classes:
        raise DataError(f"expected class folders inside the split folders of {root}; found none")
    return _listing(root, classes, [root, *folders])


def list_csv(table: Path) -> Listing:
    """Lists the rows of a CSV with the columns path, label and, where splits are given, split.

    Raises:
        DataError: not a CSV in UTF-8, a column is missing, or a row has no path, no label or an unknown split.
    """
    root = table.parent
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            files = list(_rows(stream, table))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"expected a CSV file in UTF-8 at {table}: {error}") from error
    # The same row twice is one image; the same path under two labels stays two, for whoever looks for that.
    unique = sorted(set(files), key=lambda file: (_order(file.path, root), file.label, file.split or ""))
    return Listing(root, tuple(unique), frozenset(file.label for file in unique))


def is_ignored(name: str, *, folder: bool) -> bool:
    """Whether this name is passed over quietly: hidden, a system's litter, or a file that is surely not an image."""
    lower = name.lower()
    return lower.startswith(".") or lower in _OTHER_NAMES or (not folder and Path(lower).suffix in _OTHER_SUFFIXES)


def _rows(stream: Iterator[str], table: Path) -> Iterator[Listed]:
    reader = csv.DictReader(stream, skipinitialspace=True, strict=True)
    columns = [(name or "").strip().lower() for name in reader.fieldnames or []]
    reader.fieldnames = columns
    if not {"path", "label"} <= set(columns):
        raise DataError(f"expected the columns path,label[,split] in {table}; found: {','.join(columns) or 'nothing'}")
    for row in reader:
        where = f"{table}, line {reader.line_num}"
        if "\n" in "".join(chain.from_iterable(value or "" for value in row.values())):
            raise DataError(f"{where}: expected each row on one line; a quotation mark may be open")
        path, label, word = ((row.get(name) or "").strip() for name in ("path", "label", "split"))
        if not path or not label:
            raise DataError(f"{where}: expected a path and a label, found path {path!r} and label {label!r}")
        if word and word.lower() not in SPLIT_WORDS:
            raise DataError(f"{where}: expected the split train, validation or test, or none; found {word!r}")
        yield Listed(table.parent / path, label, SPLIT_WORDS[word.lower()] if word else None)


def _listing(root: Path, classes: Sequence[tuple[Path, str | None]], parents: list[Path]) -> Listing:
    files = [Listed(path, folder.name, split) for folder, split in classes for path in _walk(folder)]
    unlabelled = [path for parent in parents for path in parent.iterdir() if _is_image(path)]
    return Listing(
        root,
        tuple(sorted(files, key=lambda file: _order(file.path, root))),
        frozenset(folder.name for folder, _ in classes),
        tuple(sorted(unlabelled)),
    )


def _walk(folder: Path) -> Iterator[Path]:
    """Files at any depth that may be images, and folders that cannot be read, as which they are rejected later.

    Links are followed, each folder once, so that a loop of links ends.
    """
    seen = set()
    closed: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=closed.append, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_ignored(name, folder=True))
        yield from (Path(parent, name) for name in names if not is_ignored(name, folder=False))
    yield from (Path(error.filename) for error in closed)


def _only_folder(root: Path) -> Path | None:
    """The one folder in `root` where it only wraps others: not itself a class, not a split, nothing beside it."""
    folders = _folders(root)
    if len(folders) != 1 or folders[0].name.lower() in SPLIT_WORDS or any(map(_is_image, root.iterdir())):
        return None
    return folders[0] if _folders(folders[0]) else None


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _IMAGE_SUFFIXES and not is_ignored(path.name, folder=False) and path.is_file()


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not is_ignored(entry.name, folder=True))


def _order(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
