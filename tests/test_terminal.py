"""What a terminal does to a service that was started from it: it closes, or somebody presses a key."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import VersionFactory
from tests.pictures import plain
from tests.running import Service, eventually

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def not_nohup() -> Iterator[None]:
    """The tests may themselves run under nohup, which whatever they start would inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def _signal(service: Service, number: int) -> None:
    """To the whole process group of the supervisor, as far as it is the service's: the tests are in it, too."""
    group = os.getpgid(service.process.pid)
    members = {pid: name for pid, name in service.processes().items() if os.getpgid(pid) == group}
    assert any(name.startswith("graft engine") for name in members.values()), members
    for pid in members:
        os.kill(pid, number)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_the_service_drains(
    number: signal.Signals, version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
) -> None:
    """What was accepted is answered, the exit code is 0, and nothing is left, as after SIGTERM."""
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models", drain_delay_s=1)
    image = plain("red", size=(3000, 3000))
    with ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(service.classify, image) for _ in range(4)]
        eventually(lambda: b"graft_requests_in_flight 0.0" not in service.get("/metrics").body, "they are accepted")
        _signal(service, number)
        if number == signal.SIGHUP:
            os.kill(service.process.pid, number)  # the shell passes on what the kernel said already
        assert service.process.wait(60) == 0
        assert [one.result().status for one in asked] == [200] * 4
    assert "drained" in service.log()


def test_nohup(tmp_path: Path) -> None:
    """Who starts it so that a hang-up is ignored means that."""
    with tempfile.TemporaryDirectory(prefix="graft-test-") as run_dir, (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "service", "--models", str(tmp_path), "--run-dir", run_dir]
        command += ["--http-port", "0", "--grpc-port", "0"]
        process = subprocess.Popen(
            ["/bin/sh", "-c", "trap '' HUP; exec \"$@\"", "nohup", *command], cwd=_ROOT, stdout=log, stderr=log
        )
        try:
            eventually((Path(run_dir) / "address.json").exists, "it runs")
            process.send_signal(signal.SIGHUP)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
