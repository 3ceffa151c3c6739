"""What this machine does without any service: one process per core that decodes and infers, by the service's own code.

The processes are started once and wait between measurements, so that the limit can be taken between any two others:
machines change their speed from minute to minute.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np

from service import host
from service.engine.runtime import candidates, load
from service.image import decode
from service.version import read_version

BATCH: Final = 4
_TOGETHER_S: Final = 0.1


@dataclass(frozen=True)
class _Order:
    """What a process is to do: from when, how long, with how many images at a time, with or without decoding them."""

    start: float
    seconds: float
    batch: int
    decodes: bool


class Limit:
    """The processes of one version and its images.

    Args:
        version_dir: what they load.
        images: what they decode in turn.
    """

    def __init__(self, version_dir: Path, images: Sequence[bytes]) -> None:
        context = multiprocessing.get_context("spawn")
        self._processes = []
        self._connections: list[Connection[_Order | None, list[float]]] = []
        for core in sorted(os.sched_getaffinity(0)):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(version_dir, images, core, theirs), daemon=True)
            process.start()
            self._processes.append(process)
            self._connections.append(ours)
        for connection in self._connections:
            connection.recv()

    def __enter__(self) -> "Limit":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the processes."""
        for connection in self._connections:
            connection.send(None)
        for process in self._processes:
            process.join()

    def images_per_s(self, seconds: float, *, decodes: bool = True) -> float:
        """Images per second of all cores together, in batches; with `decodes` False, of inference alone."""
        order = _Order(time.monotonic() + _TOGETHER_S, seconds, BATCH, decodes)
        return sum(BATCH * len(took) / sum(took) for took in self._run(order, self._connections))

    def one_ms(self, seconds: float) -> float:
        """Median milliseconds of one image alone, decoded and run on one core while the others are idle."""
        order = _Order(time.monotonic() + _TOGETHER_S, seconds, 1, decodes=True)
        (took,) = self._run(order, self._connections[:1])
        return 1e3 * statistics.median(took)

    def _run(self, order: _Order, connections: "Sequence[Connection[_Order | None, list[float]]]") -> list[list[float]]:
        for connection in connections:
            connection.send(order)
        return [connection.recv() for connection in connections]


def _work(
    version_dir: Path, images: Sequence[bytes], core: int, orders: "Connection[list[float], _Order | None]"
) -> None:
    os.sched_setaffinity(0, {core})  # before the runtime loads, as an engine does
    version = read_version(version_dir)
    runtime = load(version, candidates("auto", host.cpu_flags(), host.has_gpu()), threads=1)
    at = 97 * core
    orders.send([])
    while order := orders.recv():
        took = []
        batch = np.stack([decode(images[(at + more) % len(images)], version.spec) for more in range(order.batch)])
        time.sleep(max(0.0, order.start - time.monotonic()))
        begun = started = time.monotonic()
        while begun - started < order.seconds:
            if order.decodes:
                batch = np.stack(
                    [decode(images[(at + more) % len(images)], version.spec) for more in range(order.batch)]
                )
            runtime.predict(batch)
            at += order.batch
            ended = time.monotonic()
            took.append(ended - begun)
            begun = ended
        orders.send(took)
