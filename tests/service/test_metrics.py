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


def test_nothing_counted_is_lost_when_the_file_of_numbers_grows(tmp_path: Path) -> None:
    """A number's place is remembered, in memory that was mapped before the file grew."""
    counted = """
from service.metrics import IN_FLIGHT, count_request, expose
from service.routes import Routes

statuses = [f"{number:0200d}" for number in range(2000)]
for _ in range(2):
    for status in statuses:
        count_request("grpc", status)
IN_FLIGHT.inc()
IN_FLIGHT.inc()
IN_FLIGHT.dec()
print(expose(Routes()).decode())
"""
    run = subprocess.run(
        [sys.executable, "-c", counted],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        check=True,
        text=True,
    )
    (file,) = tmp_path.glob("counter_*.db")
    assert file.stat().st_size > 2000 * 200
    totals = [line for line in run.stdout.splitlines() if line.startswith("graft_requests_total{")]
    assert len(totals) == 2000
    assert all(line.endswith(" 2.0") for line in totals)
    assert "graft_requests_in_flight 1.0" in run.stdout


def test_what_is_expected_is_there_before_the_first_answer(tmp_path: Path) -> None:
    """Making a histogram's numbers takes a millisecond or two, which the first request should not wait for."""
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from service.metrics import expect, expose; from service.routes import Routes\n"
            "expect('pets', 3); print(expose(Routes()).decode())",
        ],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        check=True,
        text=True,
    )
    lines = run.stdout.splitlines()
    assert 'graft_images_total{code="OK",model="pets",version="3"} 0.0' in lines
    assert 'graft_stage_seconds_count{model="pets",stage="decode"} 0.0' in lines
    assert 'graft_request_seconds_count{protocol="grpc"} 0.0' in lines
