"""Small files that are replaced whole: a reader, or whoever starts after a crash, finds the old text or the new one."""

import os
from contextlib import suppress
from pathlib import Path


def replace_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Writes beside the file and renames.

    Args:
        path: the file; one writer at a time.
        text: what it shall hold.
        durable: return only when a power cut can no longer bring the old text back.

    Raises:
        OSError: it cannot be written, for want of room or permission. The old text is still there, and nothing else.
    """
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        with unfinished.open("w", encoding="utf-8") as stream:
            stream.write(text)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        unfinished.rename(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
