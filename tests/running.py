"""A real service in its own processes, as tests see it."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_DEADLINE_S = 60.0
LEAKS = (str(_ROOT), tempfile.gettempdir(), "site-packages", ".py", "Traceback", 'File \\"', " object at ")
"""What no client may be told: where things lie on the host, and what Python says of its objects."""


def eventually(holds: Callable[[], Any], what: str, seconds: float = _DEADLINE_S) -> Any:
    """Waits until `holds` gives something true and returns that; fails with `what` at the deadline."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)
    return found


@dataclass(frozen=True)
class HttpAnswer:
    """What came back over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass
class Service:
    """A running `python -m service` with its own models and run directory.

    Attributes:
        models: the models directory that it serves.
        run_dir: its --run-dir.
        process: the supervisor.
        http: base URL of the HTTP front.
        grpc: address of the gRPC front.
    """

    models: Path
    run_dir: Path
    process: subprocess.Popen[bytes]
    http: str = ""
    grpc: str = ""
    _seen: set[tuple[int, str]] = field(default_factory=set)

    def log(self) -> str:
        """Everything that its processes have printed so far."""
        return (self.run_dir / "log").read_text(encoding="utf-8", errors="replace")

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """One HTTP request on a connection of its own."""
        connection = http.client.HTTPConnection(self.http.removeprefix("http://"), timeout=_DEADLINE_S)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return HttpAnswer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def get(self, path: str) -> HttpAnswer:
        """GET."""
        return self.request("GET", path)

    def classify(self, image: Any, query: str = "", content_type: str = "image/png") -> HttpAnswer:
        """POST /classify with a raw body."""
        return self.request("POST", f"/classify{query}", image, {"Content-Type": content_type})

    def readyz(self) -> HttpAnswer:
        """GET /readyz."""
        return self.get("/readyz")

    def is_live(self) -> bool:
        """Whether the HTTP front answers."""
        assert self.process.poll() is None, f"the service ended with {self.process.returncode}\n{self.log()}"
        try:
            return self.get("/healthz").status == 200
        except OSError:
            return False

    def live(self, name: str = "pets") -> int:
        """The version that answers by default; 0 for none."""
        return self.readyz().json["models"].get(name, {}).get("live", 0)

    def wait_ready(self) -> None:
        """Until /readyz says so; fails with the log when the service ends or takes too long."""
        try:
            eventually(self._is_ready, "ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from error

    def processes(self) -> dict[int, str]:
        """Every living process of this service by id, with the name that `ps` shows, the supervisor included."""
        parents = _parents()
        try:
            listed = set(map(int, json.loads((self.run_dir / "children.json").read_text(encoding="ascii"))["born"]))
        except (FileNotFoundError, ValueError):
            listed = set()
        found = {self.process.pid} | {pid for pid in listed if pid in parents}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        names = {pid: _name(pid) for pid in sorted(found) if pid in parents}
        self._seen |= {(pid, born) for pid in names if (born := _born(pid))}  # else it has ended just now
        return names

    def engines(self, named: str = "") -> list[int]:
        """Process ids of the engines that serve, of one "name/version" or of all."""
        return [pid for pid, name in self.processes().items() if name.startswith(f"graft engine {named}".rstrip())]

    def fronts(self) -> list[int]:
        """Process ids of the processes that speak with clients: gunicorn's workers and the gRPC front."""
        return [pid for pid, name in self.processes().items() if name.startswith("graft front")]

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.processes()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_DEADLINE_S)

    def stop(self) -> None:
        """Ends it as an operator would, unless it has ended already; asserts that it exited with 0 and left nothing."""
        self.processes()
        try:
            if self.process.poll() is None:
                self.terminate()
            code = self.process.returncode
            assert code == 0, f"the service ended with {code}\n{self.log()}"
            eventually(lambda: not self._left(), f"no process is left of {sorted(self._seen)}", 10)
        finally:
            for pid in self._left():
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
            shutil.rmtree(self.run_dir, ignore_errors=True)

    def _left(self) -> list[int]:
        return [pid for pid, born in self._seen if _born(pid) == born]

    def _is_ready(self) -> bool:
        return self.is_live() and self.readyz().status == 200


def start(models: Path, **settings: object) -> Service:
    """Starts a service and waits until its HTTP front answers; settings are flags without dashes."""
    # not pytest's folder, whose long paths leave no room for the name of a Unix socket
    run_dir = Path(tempfile.mkdtemp(prefix="graft-test-"))
    chosen = {"http_port": 0, "grpc_port": 0, "run_dir": run_dir, "models": models, "poll_interval_s": 0.1}
    chosen |= {"target_p99_ms": 60_000} | settings  # a test machine may be slow: nothing is to be refused for that
    flags = [part for name, value in chosen.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAFT_")}
    with (run_dir / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", *flags], cwd=_ROOT, env=environment, stdout=log, stderr=log
        )
    service = Service(models, run_dir, process)
    address = run_dir / "address.json"

    def announced() -> dict[str, str] | None:
        assert process.poll() is None, f"the service ended with {process.returncode}"
        try:
            found: dict[str, str] = json.loads(address.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None
        return found

    try:
        found = eventually(announced, "an address")
        service.http, service.grpc = found["http"], found["grpc"]
        eventually(service.is_live, "an answer of the HTTP front")
    except BaseException as error:
        error.add_note(service.log())
        with suppress(AssertionError, subprocess.TimeoutExpired):  # what went wrong first is what matters
            service.stop()
        raise
    return service


def client_command(*arguments: object) -> tuple[list[str], dict[str, str]]:
    """The command line of the light client, and the environment to run it in from any folder."""
    environment = {"PYTHONPATH": str(_ROOT), "PATH": "", "GRPC_VERBOSITY": "NONE"}
    return [sys.executable, "-m", "service.client", *map(str, arguments)], environment


def runs(pid: int) -> bool:
    """Whether there is such a process, and not only its end that nobody has taken note of."""
    return bool(_stat(pid))


def _parents() -> dict[int, int]:
    """Every process that has not ended, with its parent."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            parents[int(folder.name)] = int(fields[1])
    return parents


def _born(pid: int) -> str:
    """When a process started, in ticks since boot: with its id, this is never used twice. Empty when it has ended."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name; none for a process that has ended, waited for or not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
    except OSError:
        return []
    return [] if fields[0] in {"Z", "X"} else fields


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
