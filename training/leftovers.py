"""What is written beside the place where it will be, named after its process, so that what a killed one left can go.

In a cache that several hosts or containers share, nobody can tell whether another's process lives: so nothing is
removed that was touched within the last hour.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Final

_LEFT_AFTER_S: Final = 3600.0


def prefix(kind: str) -> str:
    """How names of this process begin."""
    return f"{kind}{os.getpid()}-"


def remove(folder: Path, kind: str) -> None:
    """Removes what processes that are no more have left of a kind, files or folders."""
    for path in folder.glob(f"{kind}*"):
        pid = path.name.removeprefix(kind).split("-")[0]
        if (pid.isdigit() and Path(f"/proc/{pid}").exists()) or _age_s(path) < _LEFT_AFTER_S:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:  # it has just gone
        return 0.0
