"""What is published under a models directory, without opening any of it.

Apart from service/version.py because fronts look, too, and must not load what makes pixels.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}")


def valid_name(name: str) -> bool:
    """Whether `name` may name a model: letters, digits, '.', '_' and '-', starting with a letter or digit."""
    return _NAME.fullmatch(name) is not None


def valid_number(text: str) -> bool:
    """Whether `text` may be the name of a version's directory: a positive integer without leading zeros."""
    return _NUMBER.fullmatch(text) is not None


def list_versions(models: Path) -> dict[str, list[int]]:
    """Finds what is published under a models directory.

    Returns:
        Version numbers, ascending, by model name. Anything else in the directory is ignored, as are folders that cannot
        be read.
    """
    found: dict[str, list[int]] = {}
    for name in names(models):
        try:
            numbers = versions(models / name)
        except OSError:
            continue
        if numbers:
            found[name] = numbers
    return found


def names(models: Path) -> list[str]:
    """What may be models in a models directory, by name; none where there is no such directory.

    Nothing of them is looked at: one that cannot be read hides no other.

    Raises:
        OSError: the directory itself cannot be read.
    """
    try:
        return sorted(entry.name for entry in models.iterdir() if valid_name(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def versions(model: Path) -> list[int]:
    """The versions in a model's folder, ascending.

    Raises:
        OSError: it cannot be read.
    """
    return sorted(int(folder.name) for folder in folders(model) if valid_number(folder.name))


def folders(path: Path) -> Iterator[Path]:
    """The folders in `path`, by name; none where there is no such folder.

    Raises:
        OSError: it cannot be read.
    """
    try:
        yield from sorted(entry for entry in path.iterdir() if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return
