"""service/supervisor.py: whom it takes for its own, and what a host that refuses something does not stop."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from service import supervisor
from service.settings import Settings
from service.supervisor import Supervisor
from tests.running import eventually


@contextmanager
def _sleeper(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def _left(home: Path) -> dict[int, int]:
    return dict(supervisor._living(supervisor._children(home)))


def test_only_the_very_processes_that_were_left_are_taken_over(tmp_path: Path) -> None:
    """Not who has such a process id since, whatever it is called, nor anybody after the host has started anew."""
    file = tmp_path / "children.json"
    with _sleeper("graft") as process:
        pid, boot = process.pid, supervisor._boot_id()
        born = supervisor._born(pid)
        assert born > 0

        def write(written: object) -> None:
            file.write_text(json.dumps(written), encoding="ascii")

        write({"boot_id": boot, "born": {pid: born, os.getpid(): born}})
        assert _left(tmp_path) == {pid: born}
        for other in (
            {"boot_id": boot, "born": {pid: born - 1}},
            {"boot_id": "another", "born": {pid: born}},
            {"born": {pid: born}},
            {"boot_id": boot, "born": [pid]},
            [pid],
            pid,
            None,
        ):
            write(other)
            assert _left(tmp_path) == {}, other
        file.write_text("[1, ", encoding="ascii")
        assert _left(tmp_path) == {}
        write({"boot_id": boot, "born": {pid: born}})
        process.kill()
        eventually(lambda: not _left(tmp_path), "it has ended, though nobody has taken note of it")
    file.unlink()
    assert _left(tmp_path) == {}


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Supervisor]:
    """One that has begun, and whose `run` nobody has called."""
    # not pytest's folder, whose long path leaves no room for the names of sockets
    with tempfile.TemporaryDirectory(prefix="graft-test-") as home:
        made = Supervisor(replace(Settings(), models=tmp_path, run_dir=Path(home), http_port=0, grpc_port=0))
        yield made
        os.close(made._lock)
        for end in (*made._holders, made._wake_reader, made._wake_writer):
            end.close()


def test_a_models_directory_that_fails_stops_nothing_else(mine: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are looked after, the table is written and fronts are restarted; who cannot be told to end is let be."""
    done: list[str] = []

    def fail() -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(mine._catalog, "scan", fail)
    monkeypatch.setattr(mine._catalog, "tick", lambda: done.append("tick"))
    monkeypatch.setattr(mine, "_keep_fronts", lambda: done.append("fronts"))
    mine._step()
    assert done == ["tick", "fronts"]
    assert (mine._settings.run_dir / "routes.json").exists()

    def forbid(pid: int, number: int) -> None:
        done.append(f"{signal.Signals(number).name} {pid}")
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with _sleeper() as process:
        mine._orphans = {process.pid: supervisor._born(process.pid)}
        monkeypatch.setattr(supervisor.os, "kill", forbid)
        mine._relieve()
        monkeypatch.undo()
        assert done[2:] == [f"SIGTERM {process.pid}"]


def test_what_is_written_is_recognised_again(mine: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fronts and orphans are listed with their beginnings."""
    with _sleeper() as front, _sleeper() as orphan:
        monkeypatch.setattr(mine, "_fronts", {"http": front})
        mine._orphans = {orphan.pid: supervisor._born(orphan.pid)}
        mine._write(draining=False)
        assert _left(mine._home).keys() == {front.pid, orphan.pid}
