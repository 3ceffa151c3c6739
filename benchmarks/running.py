"""A service of a benchmark's own, on free ports and in a folder of its own."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.footprint import wait_until_ready


@dataclass(frozen=True)
class Running:
    """Where it is.

    Attributes:
        pid: of the supervisor.
        http: URL of the HTTP front.
        grpc: address of the gRPC front.
        run_dir: its --run-dir; its log is `log` there.
    """

    pid: int
    http: str
    grpc: str
    run_dir: Path


@contextmanager
def serving(models: Path, flags: Sequence[str] = ()) -> Iterator[Running]:
    """Starts a service, waits until it is ready, and ends it afterwards.

    Args:
        models: the models directory.
        flags: further settings.
    """
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        run_dir = Path(folder)
        command = [sys.executable, "-m", "service", "--models", str(models), "--run-dir", folder]
        with (run_dir / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--http-port", "0", "--grpc-port", "0", *flags], stdout=log, stderr=log
            )
        try:
            url = wait_until_ready(run_dir, process)
            address = json.loads((run_dir / "address.json").read_text(encoding="ascii"))
            yield Running(process.pid, url, address["grpc"], run_dir)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
