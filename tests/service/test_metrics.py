"""service/metrics.py: where the numbers are kept."""

import os
import resource
import subprocess
import sys
from pathlib import Path


def test_a_front_that_finds_no_room_leaves_nothing_behind(tmp_path: Path) -> None:
    """An empty file of numbers would end every look at the metrics of all others."""
    limit = 4096
    run = subprocess.run(
        [sys.executable, "-c", "import service.metrics"],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        check=False,
    )
    assert b"OSError" in run.stderr
    assert not list(tmp_path.iterdir())
