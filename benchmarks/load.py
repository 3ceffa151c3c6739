"""Closed-loop load: each connection sends its next request when it has the answer to the last.

HTTP by wrk, which costs next to nothing beside what it measures; gRPC by threads of a few processes, each with a
connection of its own, that send messages serialized beforehand.
"""

import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Final

import grpc

_SCRIPT: Final = Path(__file__).with_name("wrk.lua")
_PROCESSES: Final = 2
_CALL_TIMEOUT_S: Final = 30.0


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
    context = multiprocessing.get_context("spawn")
    queue: Queue[tuple[list[float], int]] = context.Queue()
    processes = min(_PROCESSES, connections)
    barrier = context.Barrier(processes)
    shares = [range(connections)[start::processes] for start in range(processes)]
    started = [
        context.Process(target=_call, args=(target, method, messages, share, seconds, barrier, queue))
        for share in shares
    ]
    for process in started:
        process.start()
    told = [queue.get() for _ in started]
    for process in started:
        process.join()
    latencies = sorted(latency for some, _ in told for latency in some)
    if not latencies:
        return Load(0.0, float("nan"), float("nan"), sum(errors for _, errors in told))
    at_99 = latencies[min(len(latencies) - 1, int(0.99 * len(latencies)))]
    return Load(
        len(latencies) / seconds,
        1e3 * statistics.median(latencies),
        1e3 * at_99,
        sum(errors for _, errors in told),
    )


def _call(  # noqa: PLR0917 - the start of a process
    target: str,
    method: str,
    messages: Sequence[bytes],
    numbers: Sequence[int],
    seconds: int,
    barrier: "threading.Barrier",
    queue: "Queue[tuple[list[float], int]]",
) -> None:
    latencies: list[float] = []
    errors = [0]

    def run(number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(target, options) as channel:
            send = channel.unary_unary(method)
            at = 37 * number
            while (begun := time.monotonic()) < end:
                try:
                    send(messages[at % len(messages)], timeout=_CALL_TIMEOUT_S)
                    latencies.append(time.monotonic() - begun)
                except grpc.RpcError:
                    errors[0] += 1
                at += 1

    barrier.wait()
    end = time.monotonic() + seconds
    threads = [threading.Thread(target=run, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.put((latencies, errors[0]))
