"""service/loaded.py: a host that cannot start a process now."""

import errno
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from service import loaded
from service.loaded import LoadedVersion
from service.settings import Settings


class _Host:
    """Starts as many engines as it has room for; time goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.room = 0
        self.tries = 0
        self.engines: list[_Engine] = []

    def monotonic(self) -> float:
        return self.now

    def start(self, *chosen: object) -> "_Engine":
        self.tries += 1
        if len(self.engines) >= self.room:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        engine = _Engine(socket=Path(f"{len(self.engines)}.sock"), core=chosen[3])
        self.engines.append(engine)
        return engine


class _Engine(SimpleNamespace):
    """One that has loaded at once."""

    loading, alive, error, lasting, silent_s = False, True, "", False, 0.0
    engine, side_px, class_names, pid = "openvino/f32", 32, ("red",), 1

    def kill(self) -> None:
        self.alive = False

    def how_it_ended(self) -> str:
        return "was killed by SIGKILL"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> _Host:
    """One without room for any process."""
    made = _Host()
    monkeypatch.setattr(loaded, "EngineProcess", made.start)
    monkeypatch.setattr(loaded, "time", made)
    return made


def _load() -> LoadedVersion:
    return LoadedVersion(Path("pets/1"), Path("run"), replace(Settings(), engines=3, load_timeout_s=5.0))


def test_engines_that_cannot_start_are_tried_again_and_the_rest_waits_for_them(host: _Host) -> None:
    """Once a second, without leaving `tick`; a version serves when all of its engines do."""
    version = _load()
    for _ in range(10):
        version.tick()
    assert (host.tries, version.state) == (1, "LOADING")
    host.room = 2
    host.now += 1
    version.tick()
    assert (host.tries, len(host.engines), version.state) == (4, 2, "LOADING")
    host.room = 3
    host.now += 0.5
    version.tick()
    assert (host.tries, version.state) == (4, "LOADING")
    host.now += 0.5
    version.tick()
    assert (len(host.engines), version.state) == (3, "AVAILABLE")


def test_a_host_that_never_has_room_does_not_hold_a_version_for_ever(host: _Host) -> None:
    """It fails after --load-timeout-s, which may be the host's fault, so that it will be tried again."""
    version = _load()
    host.room = 1
    for _ in range(12):
        version.tick()
        host.now += 0.5
    assert (version.state, version.error, version.lasting) == ("END", "not loaded within 5 s", False)
    assert not host.engines[0].alive


def test_one_that_died_is_replaced_when_there_is_room_again(host: _Host) -> None:
    """Meanwhile the others answer."""
    host.room = 3
    version = _load()
    version.tick()
    host.engines[0].alive = False
    version.tick()
    assert (version.state, len(version.route().sockets)) == ("AVAILABLE", 2)
    host.room = 4
    version.tick()
    assert len(version.route().sockets) == 2
    host.now += 1
    version.tick()
    assert version.route().sockets == ("1.sock", "2.sock", "3.sock")
