"""A .zip of labelled images, unpacked once into a cache folder.

Owns the safety of unpacking: names that leave the folder, symbolic links, encrypted entries and archives that are
larger than a stated limit are refused before anything is written. What the files mean is not here: training/listing.py.
"""

import hashlib
import lzma
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from training import leftovers
from training.errors import DataError
from training.listing import is_ignored

MAX_UNPACKED_BYTES: Final = 20 * 2**30
"""Refuse an archive whose files claim more than this together. Photos hardly compress, so real ones stay near it."""

_UNFINISHED: Final = ".unpacking-"
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError)
"""What reading a damaged archive raises; ValueError for names that are not in the encoding that they claim."""


def unpack(archive: Path, cache: Path, limit_bytes: int = MAX_UNPACKED_BYTES) -> Path:
    """Unpacks the archive, or finds what an earlier call has unpacked.

    The folder is named for the archive's SHA-256 and appears by one rename, so that a killed call leaves no half of it.

    Args:
        archive: the .zip file.
        cache: a folder for unpacked archives; made where it is absent.
        limit_bytes: the most that all files may have together, unpacked.

    Returns:
        The folder with the archive's files, without hidden and ignored ones.

    Raises:
        DataError: not a zip, damaged, encrypted, unsafe, larger than the limit or than the disk.
    """
    with archive.open("rb") as stream:
        target = cache / f"zip-{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    leftovers.remove(cache, _UNFINISHED)
    unfinished = Path(tempfile.mkdtemp(prefix=leftovers.prefix(_UNFINISHED), dir=cache))
    try:
        with zipfile.ZipFile(archive) as opened:
            _extract(opened, _checked(opened, archive, cache, limit_bytes), unfinished)
        unfinished.rename(target)
    except (*_DAMAGED, NotImplementedError, RuntimeError) as error:  # zipfile's, for unknown compressions and passwords
        raise DataError(f"expected a readable .zip file at {archive}: {error}") from error
    except OSError as error:
        # Somebody else may have finished the same archive meanwhile; that is as good.
        if not target.is_dir():
            raise DataError(f"cannot unpack {archive} into {cache}: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _checked(
    opened: zipfile.ZipFile, archive: Path, cache: Path, limit_bytes: int
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The entries worth unpacking with their relative paths; all of the archive is checked, ignored entries too."""
    wanted = []
    for entry in opened.infolist():
        path = _relative_path(entry.filename, archive)
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise DataError(f"{archive} holds a symbolic link, {entry.filename!r}; links are not unpacked")
        if entry.flag_bits & 1:
            raise DataError(f"{archive} is encrypted; unpack it and give the folder")
        hidden = any(is_ignored(part, folder=True) for part in path.parts[:-1])
        if path.parts and not hidden and not is_ignored(path.name, folder=_is_folder(entry)):
            wanted.append((entry, path))
    # zipfile reads no entry beyond the size that it claims, so the claims are what can reach the disk.
    total = sum(entry.file_size for entry, _ in wanted)
    if total > limit_bytes:
        raise DataError(
            f"{archive} unpacks to {total} bytes, the limit is {limit_bytes}; if you trust it, unpack it yourself and "
            "give the folder"
        )
    free = shutil.disk_usage(cache).free
    if total > free:
        raise DataError(f"{archive} unpacks to {total} bytes, but {cache} has only {free} bytes free")
    return wanted


def _relative_path(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))  # some Windows programs write backslashes
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts:
        raise DataError(f"{archive} holds {name!r}, which leads out of the folder that it is unpacked into")
    return path


def _extract(opened: zipfile.ZipFile, wanted: list[tuple[zipfile.ZipInfo, PurePosixPath]], folder: Path) -> None:
    for entry, path in wanted:
        target = folder / path
        if _is_folder(entry):
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(entry) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.endswith(("/", "\\"))
