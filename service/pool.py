"""Engine processes: start one, learn how its loading went, stop it.

The supervisor and the trainer's evaluation both start engines here, so both run the same program. How many there are
and what becomes of one that died is their business.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from service import backlog, host

_ROOT: Final = Path(__file__).resolve().parent.parent
_FEWEST_HOST_CORES: Final = 2
_MOST_HOST_CORES: Final = 4
"""Each engine has a thread for each, which sleeps while there is more to do. More than two were not measured."""
_numbers = itertools.count(1)
_first_core: Final = int.from_bytes(os.urandom(2))


class EngineProcess:
    """One `python -m service.engine`.

    Args:
        version_dir: what it loads.
        run_dir: where its socket goes.
        engine: one of settings.ENGINES.
        core: CPU core to pin it to; None for all.
        max_pixels: limit for one picture.
        options: further flags of the process.
        host_cores: cores for an image that has the host to itself, its own among them; none where that is all.

    Raises:
        OSError: the host cannot start another process.

    Attributes:
        socket: path of its Unix socket.
        engine: engine and precision once it has loaded, such as "openvino/bf16".
        error: why it did not load; empty otherwise.
        lasting: that is the version's fault: as long as its directory stays as it is, trying again is of no use.
        side_px: S of the model's input, once it has loaded.
        class_names: in the order of the model's scores, once it has loaded.
    """

    def __init__(  # noqa: PLR0917 - a process has as many flags
        self,
        version_dir: Path,
        run_dir: Path,
        engine: str,
        core: int | None,
        max_pixels: int,
        options: Sequence[str] = (),
        host_cores: Sequence[int] = (),
    ) -> None:
        self.core = core
        # never used twice, so that no front takes a new engine for the one that died
        self.socket = run_dir / f"engine-{os.getpid()}-{next(_numbers)}.sock"
        self.engine = ""
        self.error = ""
        self.lasting = False
        self.side_px = 0
        self.class_names: tuple[str, ...] = ()
        status_reader, status_writer = os.pipe()
        command = [sys.executable, "-m", "service.engine", "--version-dir", str(version_dir.absolute())]
        command += ["--socket", str(self.socket), "--status-fd", str(status_writer), "--engine", engine]
        command += ["--max-pixels", str(max_pixels), *(() if core is None else ("--core", str(core))), *options]
        command += ["--host-cores", *map(str, host_cores)] if host_cores else []
        # One engine is one thread; numeric libraries that start a thread per core would only get in its way.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            self._process = subprocess.Popen(command, pass_fds=(status_writer,), cwd=_ROOT, env=environment)
        except OSError:
            os.close(status_reader)
            raise
        finally:
            os.close(status_writer)
        os.set_blocking(status_reader, False)
        self._status: int | None = status_reader
        self._said = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def loading(self) -> bool:
        """Whether it has yet to say how loading went; hears what it says. Afterwards `engine` or `error` is set."""
        if self._status is None:
            return False
        try:
            while chunk := os.read(self._status, 65536):
                self._said += chunk
        except BlockingIOError:
            return True
        os.close(self._status)
        self._status = None
        try:
            outcome: dict[str, Any] = json.loads(self._said)
        except ValueError:  # nothing, or a part: it was killed
            outcome = {"error": f"the engine {self.how_it_ended()} while loading"}
        self.engine, self.error = outcome.get("engine", ""), outcome.get("error", "")
        self.lasting = outcome.get("lasting", False)
        self.side_px, self.class_names = outcome.get("side_px", 0), tuple(outcome.get("class_names", ()))
        return False

    @property
    def silent_s(self) -> float:
        """Seconds since its last sign of life (see EngineLoop); 0 before the first."""
        try:
            return max(0.0, time.monotonic() - self.socket.stat().st_mtime)
        except FileNotFoundError:
            return 0.0

    def drain(self) -> None:
        """Asks it to end once every front has hung up."""
        if self.alive:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once and removes its socket."""
        if self.alive:
            self._process.kill()
        self.close()

    def close(self) -> None:
        """Waits for it to end and removes its socket."""
        self._process.wait()
        if self._status is not None:
            os.close(self._status)
            self._status = None
        self.socket.unlink(missing_ok=True)
        backlog.remove(self.socket)

    def how_it_ended(self) -> str:
        """For the log: "was killed by SIGKILL" or "ended with exit code 1". Waits for its end."""
        code = self._process.wait()
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def engine_cores(count: int) -> list[int | None]:
    """The core of each engine of one version.

    On a CPU host one engine per core, each with a core of its own: a single-threaded engine that decodes and infers
    beat every arrangement that hands images between threads (docs/decisions.md). On a GPU host one engine for the GPU.

    A container's CPU quota counts: engines beyond it would only be throttled in turn. Fewer engines than cores are
    pinned all the same, as OpenVINO with one thread would else choose the first core for each of them; but they begin
    at a core that this process chose by lot, so that services side by side do not share the first ones. By lot, since
    containers have the same process ids and run directories.

    Args:
        count: number of engines; 0 for what this host should have.
    """
    if host.has_gpu():
        return [None] * max(1, count)
    cores = sorted(os.sched_getaffinity(0))
    count = count or min(len(cores), host.cpu_quota() or len(cores))
    first = _first_core if count < len(cores) else 0
    return [cores[(first + index) % len(cores)] for index in range(count)]


def host_cores(cores: Sequence[int | None], core: int | None) -> list[int]:
    """The cores for an image that has the host to itself: its engine's and those of the engines beside it.

    Args:
        cores: of all engines of the version.
        core: of this one.

    Returns:
        Nothing where that is one core, or all of them anyway.
    """
    distinct = sorted({one for one in cores if one is not None})
    if core is None or len(distinct) < _FEWEST_HOST_CORES:
        return []
    at = distinct.index(core)
    return [*distinct[at:], *distinct[:at]][:_MOST_HOST_CORES]


def wait_until_loaded(engines: list[EngineProcess], timeout_s: float) -> None:
    """Returns when every engine has said how loading went, or is known never to.

    Raises:
        TimeoutError: one of them took longer than `timeout_s`.
    """
    end = time.monotonic() + timeout_s
    while any(engine.loading for engine in engines):
        if time.monotonic() > end:
            raise TimeoutError(f"an engine did not load within {timeout_s:g} s")
        time.sleep(0.01)
