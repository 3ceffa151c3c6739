"""The supervisor: starts fronts and engines, restarts what dies, switches versions, drains on SIGTERM.

It is on no request's way. If it is killed, fronts and engines go on serving; the next supervisor on the same ports
starts a set of its own beside them and then drains them.
"""

import fcntl
import json
import logging
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import setproctitle

from service.catalog import Catalog
from service.errors import GraftError
from service.files import replace_text
from service.ports import at, hold_port, require_silence
from service.routes import Routes, write_routes
from service.settings import LISTENING, Settings, save_settings

_TICK_S: Final = 0.05
_CALM_TICK_S: Final = 0.2
"""Between two looks while nothing is being loaded or ended; a process that ends wakes us besides."""
_FRONT_RETRY_S: Final = 1.0
_LONGEST_RUN_DIR: Final = 60
"""A Unix socket's path has 107 characters at most, and its name below the run directory needs up to 40."""

_FRONTS: Final = ("http", "grpc")
_RUN: Final = "run-"
_ROOT: Final = Path(__file__).resolve().parent.parent
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_log = logging.getLogger("graft.supervisor")


class AlreadyRunning(GraftError):
    """Another supervisor runs with these ports."""


class UnusableRunDir(GraftError):
    """The run directory cannot hold the engines' sockets."""


class Supervisor:
    """One service.

    Args:
        settings: as the operator gave them.

    Raises:
        PortTaken: a port is not to be had.
        UnusableRunDir: there can be no sockets in it.
        AlreadyRunning: another supervisor has these ports.
    """

    def __init__(self, settings: Settings) -> None:
        self._holders = [hold_port(settings.host, port) for port in (settings.http_port, settings.grpc_port)]
        http_port, grpc_port = ports = [holder.getsockname()[1] for holder in self._holders]
        self._home = _home(settings, http_port, grpc_port)
        self._lock = _lock(self._home)
        self._orphans = _living(_children(self._home))
        self._relieved: set[int] = set()
        # of its own, so that the fronts of a supervisor that was killed keep their table and their engines
        run_dir = self._home / f"{_RUN}{os.getpid()}"
        if not self._orphans:
            for port in ports:
                require_silence(settings.host, port)
            _remove_run_dirs(self._home)
        (run_dir / "metrics").mkdir(parents=True)
        token_file = settings.admin_token_file
        self._settings = replace(
            settings,
            models=settings.models.absolute(),
            http_port=http_port,
            grpc_port=grpc_port,
            run_dir=run_dir,
            # fronts run in another directory
            admin_token_file=token_file.absolute() if token_file != Path() else token_file,
        )
        save_settings(run_dir / "settings.json", self._settings)
        self._catalog = Catalog(self._settings, run_dir)
        self._fronts: dict[str, subprocess.Popen[bytes]] = {}
        self._front_started: dict[str, float] = {}
        self._written: Routes | None = None
        self._children: set[int] = set()
        self._next_scan = 0.0
        self._stops = 0
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)

    def run(self) -> int:
        """Serves until SIGTERM or what a terminal sends: SIGINT, SIGQUIT, SIGHUP; returns the exit code."""
        setproctitle.setproctitle("graft supervisor")
        _take_descriptors()
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake up
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._stop)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
            signal.signal(signal.SIGHUP, self._hang_up)
        try:
            self._announce()
            self._serve()
            self._drain()
        finally:
            for front in self._fronts.values():
                front.kill()
                front.wait()
            self._catalog.kill_all()
            for pid in _living(self._orphans):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            _remove_run_dirs(self._home)
            (self._home / "children.json").unlink(missing_ok=True)
        return 0

    def _serve(self) -> None:
        while not self._stops:
            try:
                self._step()
            except OSError:  # no more processes, a full disk: what runs goes on, and we try again
                _log.exception("the host refused something; trying again")
                time.sleep(_FRONT_RETRY_S)
            calm = self._catalog.calm and not self._orphans
            self._sleep(min(_CALM_TICK_S, self._settings.poll_interval_s) if calm else _TICK_S)

    def _step(self) -> None:
        if time.monotonic() >= self._next_scan:
            self._next_scan = time.monotonic() + self._settings.poll_interval_s
            try:
                self._catalog.scan()
            except OSError:  # what it could not see is no reason to look after nothing
                _log.exception("the models directory cannot be looked at; trying again")
        self._catalog.tick()
        self._write(draining=False)
        if self._orphans:
            self._take_over()
        else:
            self._keep_fronts()

    def _drain(self) -> None:
        """Not ready; then the fronts answer what they accepted; then the engines, whom nobody asks any more."""
        settings = self._settings
        _log.info("draining")
        self._look_after()
        self._until(time.monotonic() + settings.drain_delay_s, lambda: False)
        for front in self._fronts.values():
            front.terminate()
        patience = settings.drain_timeout_s + 5

        def answered() -> bool:
            self._relieve()
            return not self._orphans and all(one.poll() is not None for one in self._fronts.values())

        self._until(time.monotonic() + patience, answered)
        self._catalog.unload_all()
        self._until(time.monotonic() + patience, lambda: self._catalog.empty)
        _log.info("drained")

    def _until(self, end: float, done: Callable[[], bool]) -> None:
        """Looks after the engines until `done` or the end; a second signal ends it at once."""
        while not done() and time.monotonic() < end and self._stops < 2:
            self._look_after()
            self._sleep(_TICK_S)

    def _look_after(self) -> None:
        """The engines, while everything ends; a full disk must not end it sooner."""
        try:
            self._catalog.tick()
            self._write(draining=True)
        except OSError:
            _log.exception("the host refused something; draining goes on")
            time.sleep(_FRONT_RETRY_S)

    def _keep_fronts(self) -> None:
        for name in _FRONTS:
            front = self._fronts.get(name)
            if front and front.poll() is None:
                continue
            if front:
                if time.monotonic() - self._front_started[name] < _FRONT_RETRY_S:
                    continue
                _log.error("the %s front ended with exit code %d; another starts", name, front.returncode)
                # what it had in flight is not any more; gunicorn sees to that for its own workers
                for gauge in (self._settings.run_dir / "metrics").glob(f"gauge_live*_{front.pid}.db"):
                    gauge.unlink()
            self._front_started[name] = time.monotonic()
            self._fronts[name] = self._start_front(name)

    def _start_front(self, name: str) -> subprocess.Popen[bytes]:
        run_dir = self._settings.run_dir
        (run_dir / f"{name}{LISTENING}").unlink(missing_ok=True)
        command = [sys.executable, "-m", f"service.{name}.server", str(run_dir / "settings.json")]
        environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(run_dir / "metrics")}
        # a session of its own: Ctrl-C is for the supervisor, which then drains the fronts
        return subprocess.Popen(command, cwd=_ROOT, env=environment, start_new_session=True)

    def _write(self, *, draining: bool) -> None:
        routes = self._catalog.routes(draining=draining)
        if routes != self._written:
            write_routes(self._settings.run_dir / "routes.json", routes)
            self._written = routes
        children = {*(front.pid for front in self._fronts.values()), *self._catalog.pids, *self._orphans}
        if children != self._children:
            born = {pid: began for pid in sorted(children) if (began := _born(pid))}
            replace_text(self._home / "children.json", json.dumps({"boot_id": _boot_id(), "born": born}))
            self._children = children

    def _announce(self) -> None:
        settings = self._settings
        http, grpc = f"http://{at(settings.host, settings.http_port)}", at(settings.host, settings.grpc_port)
        (self._home / "address.json").write_text(json.dumps({"http": http, "grpc": grpc}), encoding="ascii")
        _log.info("HTTP on %s, gRPC on %s, models from %s", http, grpc, settings.models)
        if not settings.models.is_dir():
            _log.warning("there is no directory %s yet; waiting for it", settings.models)

    def _take_over(self) -> None:
        """What a killed supervisor left serves until ours does: engines first, then fronts, then the old ones go."""
        if not self._catalog.settled:
            return
        self._keep_fronts()
        if not all((self._settings.run_dir / f"{name}{LISTENING}").exists() for name in _FRONTS):
            return
        self._relieve()

    def _relieve(self) -> None:
        """Drains what a killed supervisor left: fronts first, whose engines answer what they accepted, then those."""
        self._orphans = _living(self._orphans)
        names = {pid: _name(pid) for pid in self._orphans}
        for pid in [pid for pid, name in names.items() if "engine" not in name] or list(names):
            if pid not in self._relieved:
                _log.info("draining %s (%d), left by a supervisor that was killed", names[pid], pid)
                with suppress(ProcessLookupError, PermissionError):  # it has just ended
                    os.kill(pid, signal.SIGTERM)
                self._relieved.add(pid)

    def _stop(self, *_: object) -> None:
        self._stops += 1

    def _hang_up(self, *_: object) -> None:
        """Never a second wish: a terminal that closes may say so twice, through its shell and through the kernel."""
        self._stops = max(1, self._stops)

    def _sleep(self, seconds: float) -> None:
        """At most so long, or until a signal (a child's end, too)."""
        if select.select([self._wake_reader], [], [], seconds)[0]:
            self._wake_reader.recv(4096)


def _take_descriptors() -> None:
    """As many open files as we may have: fronts of thousands of connections inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _home(settings: Settings, http_port: int, grpc_port: int) -> Path:
    if settings.run_dir != Path():
        home = settings.run_dir.absolute()
    else:
        home = Path(tempfile.gettempdir()) / f"graft-{os.getuid()}-{http_port}-{grpc_port}"
    if len(str(home)) > _LONGEST_RUN_DIR:
        raise UnusableRunDir(
            f"expected --run-dir of at most {_LONGEST_RUN_DIR} characters, got {len(str(home))}: {home}"
        )
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UnusableRunDir(f"cannot make the run directory {home}: {error.strerror}") from error
    if home.stat().st_uid != os.getuid():
        raise UnusableRunDir(f"the run directory {home} belongs to somebody else; choose another with --run-dir")
    return home


def _lock(home: Path) -> int:
    """Held until this process ends, however it ends.

    On the folder itself, for what cleans up temporary directories leaves one alone that is locked.
    """
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AlreadyRunning(f"another service runs already with the run directory {home}") from None
    return descriptor


def _remove_run_dirs(home: Path) -> None:
    """What this supervisor and those that were killed before it have left."""
    for folder in home.iterdir():
        if folder.name.startswith(_RUN) and folder.name.removeprefix(_RUN).isdigit():
            shutil.rmtree(folder, ignore_errors=True)


def _children(home: Path) -> Mapping[int, int]:
    """Processes of the last supervisor here, and when they began; none where the host has started anew since."""
    try:
        written = json.loads((home / "children.json").read_text(encoding="ascii"))
        return (
            {int(pid): int(born) for pid, born in written["born"].items()} if written["boot_id"] == _boot_id() else {}
        )
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):  # none, or of an older release
        return {}


def _living(children: Mapping[int, int]) -> Mapping[int, int]:
    """Those that run, and not others who were given their process ids since."""
    return {pid: born for pid, born in children.items() if _born(pid) == born}


def _born(pid: int) -> int:
    """When a process started, in ticks since boot; 0 when it has ended, waited for or not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in {b"Z", b"X"} else int(fields[19])


def _boot_id() -> str:
    """Another one each time that the host starts; empty where it does not say."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _name(pid: int) -> str:
    """What `ps` shows."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
