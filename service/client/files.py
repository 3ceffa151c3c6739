"""Which files to ask about: files, folders, globs and lists, found one by one and never all held."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "tif", "tiff", "bmp"})
"""How the name of a file in a folder ends, in any case, when it is taken for an image. Files given by name may end in
anything."""


def find_images(
    arguments: Iterable[str], *, recursive: bool, in_order: bool, on_problem: Callable[[str], None]
) -> Iterator[str]:
    """Finds image files.

    Hidden files and folders, and folders behind symbolic links, are left out.

    Args:
        arguments: files; folders, of which the images are taken; patterns such as "photos/*.jpg", for shells that leave
            them alone. What exists is taken by its name even when it looks like a pattern.
        recursive: take folders with everything below them.
        in_order: by name, which holds the names of one folder in memory; else as the file system gives them.
        on_problem: called with a sentence about a folder that cannot be read.
    """
    for argument in arguments:
        found = [argument]
        if not os.path.lexists(argument) and glob.has_magic(argument):
            found = sorted(glob.glob(argument, recursive=True)) or [argument]  # noqa: PTH207 - also absolute ones
        for path in found:
            if Path(path).is_dir():
                yield from _walk(path, recursive=recursive, in_order=in_order, on_problem=on_problem)
            else:
                yield path


def read_list(lines: Iterable[bytes]) -> Iterator[str]:
    """Paths, one per line; empty lines are skipped."""
    for line in lines:
        path = os.fsdecode(line.rstrip(b"\r\n"))
        if path:
            yield path


def _walk(folder: str, *, recursive: bool, in_order: bool, on_problem: Callable[[str], None]) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda one: one.name) if in_order else entries:
                if entry.name.startswith("."):
                    continue
                path = entry.path.removeprefix("./")
                if recursive and entry.is_dir(follow_symlinks=False):
                    yield from _walk(path, recursive=True, in_order=in_order, on_problem=on_problem)
                elif entry.name.rpartition(".")[2].lower() in SUFFIXES and entry.is_file():
                    yield path
    except OSError as error:
        on_problem(f"cannot read the folder {folder}: {error.strerror}")
