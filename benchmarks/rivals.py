"""Other model servers, where their benchmark lies beside the checkout: ../shared/bench (see its README).

Its bench.py starts a server, loads it with wrk, and appends what it saw to a file. One that does not start is left out.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path("../shared/bench")
MOST: Final = 32
CONNECTIONS: Final = (1, MOST)
SERVERS: Final = (
    ("flask-keras:w2pin", "openvino"),
    ("flask-keras:w1", "openvino"),
    ("pytriton:w2", "openvino"),
    ("litserve:w1", "openvino"),
    ("mlserver:w0", "openvino"),
    ("bentoml:w1", "openvino"),
    ("flask-keras:w1", "tf"),
    ("pytriton:w2", "tf"),
    ("litserve:w1", "tf"),
    ("mlserver:w0", "tf"),
)
"""Each with the engine that it runs. `flask-keras:w1` with `tf` is the tutorial's way."""

_TIMEOUT_S: Final = 180


@dataclass(frozen=True)
class Rival:
    """One server under one load.

    Attributes:
        name: of the server, with its variant.
        engine: "openvino" or "tf".
        connections: clients that wait for their answers.
        per_s: good answers per second.
        p50_ms: median.
        p99_ms: which 99 % do not exceed.
        errors: other answers, or none.
        cpu_ms: of the whole server, per request.
        pss_mb: proportional set size of all its processes.
    """

    name: str
    engine: str
    connections: int
    per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_ms: float
    pss_mb: float


def there(name: str) -> bool:
    """Whether a server's environment is on this machine; $BENCH_VENVS says where, as for bench.py."""
    venvs = Path(os.environ.get("BENCH_VENVS", FOLDER / "venvs"))
    return (FOLDER / "bench.py").exists() and (venvs / name.partition(":")[0]).exists()


def measure(name: str, engine: str, seconds: int) -> list[Rival]:
    """Runs one server with MobileNetV2; nothing when it does not start."""
    with tempfile.TemporaryDirectory(prefix="graft-rivals-") as folder:
        results = Path(folder) / "results.jsonl"
        command = [sys.executable, str(FOLDER / "bench.py"), "run", name, "--engine", engine, "--no-wait"]
        command += ["--seconds", str(seconds), "--warm", "4", "--rewarm", "2", "--start-timeout", "60"]
        command += ["--conns", ",".join(map(str, CONNECTIONS))]
        environment = os.environ | {"BENCH_RESULTS": str(results)}
        try:
            subprocess.run(
                command, env=environment, timeout=_TIMEOUT_S, stdout=subprocess.DEVNULL, stderr=sys.stderr, check=False
            )
        except subprocess.TimeoutExpired:
            sys.stderr.write(f"{name} with {engine}: no end within {_TIMEOUT_S} s\n")
        lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    told = [json.loads(line) for line in lines]
    return [
        Rival(
            name,
            engine,
            one["conns"],
            one["req_s"],
            one["p50_ms"],
            one["p99_ms"],
            one["errors"],
            one["server_cpu_ms"],
            one["pss_mb"],
        )
        for one in told
    ]
