"""The version directory: where things are in it, and whether it is what was published.

Owns the layout `<models>/<name>/<version>/`, the manifest and the hashes, for reading and for publishing alike. It does
not know what is inside a SavedModel and never runs one; `service/engine/goldens.py` does that.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf import json_format

from protos.manifest_pb2 import Goldens, Manifest
from service.errors import BrokenVersion
from service.image import ImageSpec
from service.manifest import EXTRA, MANIFEST, parse, read_manifest
from service.published import folders, list_versions, valid_number

SCHEMA_VERSION: Final = 1
GOLDENS: Final = f"{EXTRA}/goldens"
REPORT: Final = f"{EXTRA}/report"
QUANTIZED: Final = f"{EXTRA}/openvino_int8.xml"
"""The same network in 8 bits, where the version has one; its weights are in a .bin beside it."""
WARMUP: Final = f"{EXTRA}/tf_serving_warmup_requests"
UNFINISHED: Final = ".unfinished-"
"""Prefix of a directory that is being written. Never an integer, so no server takes it for a version."""


@dataclass(frozen=True)
class Version:
    """One published version directory with its manifest read.

    Attributes:
        path: the directory.
        manifest: what it says of itself.
        spec: how its pixels are made.
    """

    path: Path
    manifest: Manifest
    spec: ImageSpec

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def number(self) -> int:
        """The version's number; larger is newer."""
        return self.manifest.version

    def goldens(self) -> Goldens:
        """The golden images' file names and expected scores.

        Raises:
            BrokenVersion: there are none, or they cannot be read.
        """
        goldens = Goldens()
        parse(self.path / GOLDENS / "goldens.json", goldens, "goldens")
        if not goldens.goldens:
            raise BrokenVersion("expected golden images, found none")
        return goldens


def read_version(path: Path) -> Version:
    """Reads the manifest of a version directory; no hash is checked yet.

    Raises:
        BrokenVersion: no manifest, an unreadable one, or one that this Graft does not understand.
    """
    manifest = read_manifest(path)
    if not 1 <= manifest.schema_version <= SCHEMA_VERSION:
        raise BrokenVersion(f"expected manifest schema 1-{SCHEMA_VERSION}, found {manifest.schema_version}")
    if len(manifest.class_names) < 2:
        raise BrokenVersion(f"expected at least 2 class names, found {len(manifest.class_names)}")
    try:
        image = manifest.image
        spec = ImageSpec(image.side_px, image.resize, image.resample, image.decode_version)
    except ValueError as error:
        raise BrokenVersion(f"the image spec cannot be served: {error}") from error
    return Version(path, manifest, spec)


def verify_files(version: Version) -> None:
    """Compares every file with the manifest's hashes.

    Raises:
        BrokenVersion: a file is missing, altered, or not in the manifest.
    """
    expected = dict(version.manifest.files_sha256)
    found = hash_files(version.path)
    for verb, names in (
        ("missing", expected.keys() - found.keys()),
        ("not in the manifest", found.keys() - expected.keys()),
        ("altered", {name for name in expected.keys() & found.keys() if expected[name] != found[name]}),
    ):
        if names:
            raise BrokenVersion(f"{len(names)} file(s) {verb}: {', '.join(sorted(names)[:5])}")


def hash_files(path: Path) -> dict[str, str]:
    """SHA-256 of every file under `path` but the manifest, by relative POSIX path."""
    hashes = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_file() and name != MANIFEST:
            with file.open("rb") as stream:
                hashes[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Fills in the hashes of the files that are there and writes the manifest beside them."""
    manifest.files_sha256.clear()
    manifest.files_sha256.update(hash_files(path))
    text = json_format.MessageToJson(
        manifest, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    (path / MANIFEST).write_text(text + "\n", encoding="utf-8")


def check_place(version: Version) -> None:
    """Compares where a version lies with what its manifest says; one that is not published has no place yet.

    Raises:
        BrokenVersion: it is another model's, or another version.
    """
    path = version.path.absolute()
    if valid_number(path.name) and (path.parent.name, path.name) != (version.name, str(version.number)):
        place, said = f"{path.parent.name}/{path.name}", f"{version.name}/{version.number}"
        raise BrokenVersion(f"expected the manifest of {place}, found that of {said[:200]}")


def next_number(models: Path, name: str) -> int:
    """The number after the highest published one."""
    return max(list_versions(models).get(name, [0])) + 1


def publish(unfinished: Path, models: Path, name: str) -> Path:
    """Makes a finished, verified directory visible under the manifest's version number, by one rename.

    Args:
        unfinished: the directory, on the same file system as `models`.
        models: the models directory.
        name: the model's name.

    Returns:
        The path of the published version.

    Raises:
        FileExistsError: somebody else published this number meanwhile; take `next_number` and try again.
        BrokenVersion: the directory is not what its manifest says.
    """
    version = read_version(unfinished)
    if version.name != name:
        raise BrokenVersion(f"expected the manifest of {name}, found that of {version.name[:200]}")
    verify_files(version)
    for file in unfinished.rglob("*"):
        _sync(file)
    target = models / name / str(version.number)
    if target.exists():
        raise FileExistsError(f"version {version.number} of {name} exists already")
    try:
        unfinished.rename(target)
    except OSError as error:
        if target.exists():
            raise FileExistsError(f"version {version.number} of {name} exists already") from error
        raise
    _sync(target.parent)
    return target


def remove_unfinished(models: Path, name: str) -> None:
    """Removes what trainers that were killed have left behind. One that is still running is left alone."""
    for folder in folders(models / name):
        if folder.name.startswith(UNFINISHED):
            pid = folder.name.removeprefix(UNFINISHED).split("-")[0]
            if not (pid.isdigit() and Path(f"/proc/{pid}").exists()):
                shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
