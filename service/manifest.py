"""The manifest of a version directory: where it is, and reading it.

Apart from service/version.py because fronts read manifests, too, and must not load what makes pixels.
"""

from pathlib import Path
from typing import Final

from google.protobuf import json_format

from protos.manifest_pb2 import Goldens, Manifest
from service.errors import BrokenVersion

EXTRA: Final = "assets.extra"
"""The folder of a version directory that is ours; the rest is the SavedModel."""
MANIFEST: Final = f"{EXTRA}/manifest.json"


def read_manifest(path: Path) -> Manifest:
    """Reads the manifest of a version directory.

    Raises:
        BrokenVersion: there is none, or it cannot be read.
    """
    manifest = Manifest()
    parse(path / MANIFEST, manifest, "manifest")
    return manifest


def parse(path: Path, message: Manifest | Goldens, what: str) -> None:
    """Reads a JSON file into a message.

    Args:
        path: the file.
        message: receives its fields; unknown ones are ignored.
        what: names it in errors.

    Raises:
        BrokenVersion: there is no such file, or it cannot be read.
    """
    try:
        json_format.Parse(path.read_text(encoding="utf-8"), message, ignore_unknown_fields=True)
    except FileNotFoundError as error:
        raise BrokenVersion(f"expected a {what} at {path.name}, found no file") from error
    except OSError as error:  # whose text holds the path
        raise BrokenVersion(f"the {what} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, json_format.ParseError) as error:
        raise BrokenVersion(f"the {what} cannot be read: {error}") from error
