"""Closed-loop load: each connection sends its next request when it has the answer to the last.

HTTP by wrk and gRPC by grpc_load.py, both of which cost next to nothing beside what they measure.
"""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.grpc_load import call_in_turn

_SCRIPT: Final = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Load:
    """What clients saw.

    Attributes:
        per_s: good answers per second.
        p50_ms: median latency of them.
        p99_ms: which 99 % of them do not exceed.
        errors: other answers, or none.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    errors: int


def post(url: str, bodies: Sequence[bytes], content_type: str, connections: int, seconds: int) -> Load:
    """POSTs bodies in turn over HTTP/1.1.

    Raises:
        SystemExit: wrk is not installed.
    """
    if shutil.which("wrk") is None:
        raise SystemExit("the benchmarks need wrk, an HTTP load generator (Debian and Ubuntu: apt install wrk)")
    host, _, path = url.removeprefix("http://").partition("/")
    with tempfile.TemporaryDirectory(prefix="graft-load-") as folder:
        for number, body in enumerate(bodies):
            head = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            (Path(folder) / f"{number}.http").write_bytes(head.encode() + body)
        out = Path(folder) / "out.json"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=30s", "-s", str(_SCRIPT), url]
        environment = os.environ | {"BENCH_REQUESTS": folder, "BENCH_OUT": str(out)}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        told = json.loads(out.read_text(encoding="ascii"))
    good = told["requests"] - told["errors"]
    return Load(good / told["seconds"], told["p50_ms"], told["p99_ms"], told["errors"])


def call(target: str, method: str, messages: Sequence[bytes], connections: int, seconds: int) -> Load:
    """Calls a unary gRPC method with serialized messages in turn."""
    seen = call_in_turn(target, method, messages, connections, seconds)
    latencies = sorted(seen.latencies_s)
    if not latencies:
        return Load(0.0, float("nan"), float("nan"), seen.errors)
    at_99 = latencies[min(len(latencies) - 1, int(0.99 * len(latencies)))]
    return Load(len(latencies) / seen.seconds, 1e3 * statistics.median(latencies), 1e3 * at_99, seen.errors)
