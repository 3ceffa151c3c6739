"""One version in service: its engine processes and what state it is in. No decisions; the supervisor makes them."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from service.pool import EngineProcess, engine_cores, host_cores
from service.routes import VersionRoute
from service.settings import Settings

_HEALTHY_AFTER_S: Final = 10.0
_LONGEST_WAIT_S: Final = 10.0
_START_RETRY_S: Final = 1.0
_TABLE_READ_AFTER_S: Final = 0.2
"""By then every front has read the table without this version: four times their polling interval."""

_log = logging.getLogger("graft.supervisor")


class LoadedVersion:
    """A version from LOADING to END.

    Args:
        path: its directory.
        run_dir: where its engines' sockets go.
        settings: engine, their number, limits.

    Attributes:
        state: LOADING, AVAILABLE, UNLOADING or END.
        error: why it ended without having served; empty otherwise.
        lasting: that is the version's own fault, so trying again is of no use.
        restarts: engines that died and were replaced.
    """

    def __init__(self, path: Path, run_dir: Path, settings: Settings) -> None:
        self.state = "LOADING"
        self.error = ""
        self.lasting = False
        self.restarts = 0
        self._path = path
        self._run_dir = run_dir
        self._settings = settings
        self._name = f"{path.parent.name}/{path.name}"
        self._since = time.monotonic()
        self._draining = False
        self._deaths_in_a_row = 0
        self._engines: list[EngineProcess] = []
        cores = engine_cores(settings.engines)
        self._cores = cores
        self._due: list[tuple[float, int | None]] = [(0.0, core) for core in cores]

    @property
    def engine(self) -> str:
        """Engine and precision, once one has loaded."""
        return next((engine.engine for engine in self._engines if engine.engine), "")

    @property
    def pids(self) -> Sequence[int]:
        """Its engine processes."""
        return [engine.pid for engine in self._engines]

    @property
    def calm(self) -> bool:
        """Whether nothing is under way: no engine is loading, awaited or ending."""
        return self.state == "AVAILABLE" and not self._due and all(map(self._answers, self._engines))

    def route(self) -> VersionRoute:
        """Its line in the routing table. A version that unloads takes no new requests, so it lists no engines."""
        serving = self.state == "AVAILABLE"
        sockets = tuple(str(engine.socket) for engine in self._engines if serving and self._answers(engine))
        loaded = next((engine for engine in self._engines if engine.engine), None)
        shape = (loaded.side_px, loaded.class_names) if loaded else (0, ())
        return VersionRoute(self.state, sockets, self.engine, self.error, *shape)

    def tick(self) -> None:
        """Looks after the engines: hears how loading goes, replaces what died, ends what is drained or late."""
        if self.state == "LOADING":
            self._start_due()
            self._follow_loading()
        elif self.state == "AVAILABLE":
            self._replace_dead()
            self._start_due()
        elif self.state == "UNLOADING":
            self._follow_draining()

    def unload(self) -> None:
        """Takes the engines out of the table; they answer what they hold and end."""
        if self.state in {"LOADING", "AVAILABLE"}:
            self.state, self._since = "UNLOADING", time.monotonic()

    def kill(self) -> None:
        """Ends everything at once."""
        for engine in self._engines:
            engine.kill()
        self._engines.clear()
        self.state = "END"

    def _start_due(self) -> None:
        """Starts engines whose time has come. When the host cannot (no more processes), all of them wait a while."""
        settings = self._settings
        for due in [one for one in self._due if one[0] <= time.monotonic()]:
            _, core = due
            try:
                engine = EngineProcess(
                    self._path,
                    self._run_dir,
                    settings.engine,
                    core,
                    settings.max_pixels,
                    _options(settings),
                    host_cores(self._cores, core),
                )
            except OSError as error:
                _log.error("no engine of %s can start: %s; the next try in %g s", self._name, error, _START_RETRY_S)
                again = time.monotonic() + _START_RETRY_S
                self._due = [(max(at, again), core) for at, core in self._due]
                return
            self._engines.append(engine)
            self._due.remove(due)

    @staticmethod
    def _answers(engine: EngineProcess) -> bool:
        return not engine.loading and not engine.error and engine.alive

    def _follow_loading(self) -> None:
        took = time.monotonic() - self._since
        loading = [engine for engine in self._engines if engine.loading]
        failed = next((engine for engine in self._engines if engine.error), None)
        self.error, self.lasting = (failed.error, failed.lasting) if failed else ("", False)
        if not self.error and (loading or self._due) and took > self._settings.load_timeout_s:
            self.error = f"not loaded within {self._settings.load_timeout_s:g} s"
        if self.error:
            self.kill()
        elif not loading and not self._due:
            self.state = "AVAILABLE"
            _log.info("%s loaded on %s, %d engine(s), %.1f s", self._name, self.engine, len(self._engines), took)

    def _replace_dead(self) -> None:
        now = time.monotonic()
        if now - self._since > _HEALTHY_AFTER_S:
            self._deaths_in_a_row = 0
        for engine in self._engines:
            if self._answers(engine) and engine.silent_s > self._settings.engine_timeout_s:
                _log.error("an engine of %s hangs (no sign of life for %.0f s)", self._name, engine.silent_s)
                engine.kill()
        for engine in [one for one in self._engines if not one.alive or (not one.loading and one.error)]:
            reason = engine.error or engine.how_it_ended()
            engine.kill()
            self._engines.remove(engine)
            self.restarts += 1
            self._since = now
            # at once the first time; one that dies again and again must not eat the machine
            wait = 0.0 if not self._deaths_in_a_row else min(_LONGEST_WAIT_S, 0.1 * 2**self._deaths_in_a_row)
            self._deaths_in_a_row += 1
            _log.error("an engine of %s %s; another starts in %.1f s", self._name, reason, wait)
            self._due.append((now + wait, engine.core))

    def _follow_draining(self) -> None:
        took = time.monotonic() - self._since
        if took < _TABLE_READ_AFTER_S:
            return
        if not self._draining:
            self._draining = True
            for engine in self._engines:
                engine.drain()
        late = took > self._settings.drain_timeout_s
        for engine in [one for one in self._engines if late or not one.alive]:
            if engine.alive:
                _log.warning("an engine of %s did not drain in time and was killed", self._name)
            engine.kill()
            self._engines.remove(engine)
        if not self._engines:
            self.state = "END"
            _log.info("%s unloaded", self._name)


def _options(settings: Settings) -> Sequence[str]:
    """Further flags of the engine's process."""
    common = (
        *("--target-p99-ms", str(settings.target_p99_ms)),
        *("--log-level", settings.log_level, "--log-format", settings.log_format),
    )
    if not settings.tensorflow_serving:
        return common
    trusted = settings.tensorflow_serving_ca_file
    return (
        *common,
        *("--url", settings.tensorflow_serving, "--timeout-s", str(settings.tensorflow_serving_timeout_s)),
        *(() if trusted == Path() else ("--ca-file", str(trusted.absolute()))),
    )
