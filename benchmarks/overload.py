"""`python -m benchmarks.overload MODELS PHOTOS [--seconds 60]`: three times as many requests as can be answered.

Starts a service with one model; over HTTP and over gRPC it measures 256 clients that wait for their answers, then
requests that arrive at random at --times the peak, each with the target as its deadline, in five parts. The peak is
what 32 clients that wait get, before, between and after the parts: a machine changes its speed. Goodput is what was
answered within the deadline; its share, of the peaks before and after each part. Then bulk requests of 16 images keep
the service saturated over gRPC while interactive requests arrive over HTTP at a quarter of the peak. Memory is the
proportional set size (PSS) of all processes of the service at the start, in the middle and at the end of the overload.
Load and service share the machine, so requests that arrive at random are sent, and their answers read, every 2 ms, and
the CPU that the load takes is told, too. Ends with 1 when a claim of the project does not hold; see `_claims`.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.arrivals import (
    GOOD,
    LATE,
    GrpcSender,
    HttpSender,
    Loop,
    Seen,
    begin_closed,
    begin_open,
    closed_loop,
    open_loop,
)
from benchmarks.footprint import memory_mb
from benchmarks.running import Running, serving
from protos.classifier_pb2 import BULK, ClassifyRequest, Image

_PHOTOS: Final = 100
_PEAK_CLIENTS: Final = 32
_MANY_CLIENTS: Final = 256
_BULK_IMAGES: Final = 16
_BULK_CLIENTS: Final = 8
_INTERACTIVE_SHARE: Final = 0.25
_BATCH_IMAGES: Final = 4
_GOODPUT: Final = 0.9
_GROWTH: Final = 1.05
_PARTS: Final = 5
_RAMP_S: Final = 1.5
_LOOK_EVERY_S: Final = 0.002
Sender = HttpSender | GrpcSender


@dataclass(frozen=True)
class Overload:
    """What became of one protocol's requests.

    Attributes:
        protocol: "HTTP" or "gRPC".
        peaks: of clients that wait, before, between and after the parts.
        many: of many of them.
        parts: at more than can be answered.
        target_s: their deadline.
        memory_mb: at the start, in the middle, at the end.
        load_cpu: cores that the load took.
    """

    protocol: str
    peaks: Sequence[Seen]
    many: Seen
    parts: Sequence[Seen]
    target_s: float
    memory_mb: Sequence[float]
    load_cpu: float

    @property
    def seen(self) -> Seen:
        """All parts together."""
        statuses = {status for part in self.parts for status in part.took_s}
        took = {status: [one for part in self.parts for one in part.took_s.get(status, ())] for status in statuses}
        return Seen(sum(part.seconds for part in self.parts), took, lag_s=max(part.lag_s for part in self.parts))

    @property
    def goodput(self) -> Sequence[float]:
        """Answers within the deadline per second, by part."""
        return [sum(one <= self.target_s for one in _served_s(part, GOOD)) / part.seconds for part in self.parts]

    @property
    def overdue(self) -> int:
        """Requests that were let in and answered later than the deadline and a batch."""
        batch_s = _BATCH_IMAGES * _cores() / statistics.mean(peak.per_s for peak in self.peaks)
        latest_s = self.target_s + batch_s
        return sum(one > latest_s for part in self.parts for one in _served_s(part, (*GOOD, *LATE)))

    @property
    def shares(self) -> Sequence[float]:
        """The goodput of each part, of the peaks around it."""
        around = zip(self.peaks, self.peaks[1:], strict=False)
        return [2 * good / (a.per_s + b.per_s) for good, (a, b) in zip(self.goodput, around, strict=True)]


def _served_s(seen: Seen, statuses: Sequence[str]) -> list[float]:
    return [one for status in statuses for one in seen.served_s.get(status, ())]


def main() -> int:
    """Measures and prints; returns 1 when a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, metavar="MODELS", help="models directory with one model")
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder with JPEGs, searched in depth")
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="of overload (default: 60)")
    parser.add_argument("--times", type=float, default=3, metavar="X", help="the peak (default: 3)")
    parser.add_argument("--target-p99-ms", type=int, default=1000, metavar="MS", help="the service's (default: 1000)")
    options = parser.parse_args()
    files = sorted(file for file in options.photos.rglob("*") if file.suffix.lower() in {".jpg", ".jpeg"})
    photos = [file.read_bytes() for file in files[:: max(1, len(files) // _PHOTOS)][:_PHOTOS]]
    if not photos:
        raise SystemExit(f"expected JPEGs below {options.photos}, found none")
    with serving(options.models, ("--target-p99-ms", str(options.target_p99_ms))) as service:
        return _measure(service, photos, options)


def _measure(service: Running, photos: Sequence[bytes], options: argparse.Namespace) -> int:
    target_ms = options.target_p99_ms
    messages = [ClassifyRequest(images=[Image(data=photo)]).SerializeToString() for photo in photos]
    senders: dict[str, Callable[[], Sender]] = {
        "HTTP": lambda: HttpSender(Loop(), service.http, photos, target_ms),
        "gRPC": lambda: GrpcSender(Loop(), service.grpc, messages, target_ms),
    }
    told = [_overload(service, name, make, options) for name, make in senders.items()]
    bulk, interactive = _priorities(service, photos, told[0].peaks[-1].per_s, options)
    _tell(told, bulk, interactive, options)
    broken = _claims(told, interactive, target_ms)
    sys.stdout.write("".join(f"does not hold: {one}\n" for one in broken))
    return 1 if broken else 0


def _overload(service: Running, protocol: str, make: Callable[[], Sender], options: argparse.Namespace) -> Overload:
    part_s, measure_s = options.seconds / _PARTS, max(4.0, options.seconds / 12)
    sender = make()
    closed_loop(sender, _PEAK_CLIENTS, 3)  # warm
    many = closed_loop(sender, _MANY_CLIENTS, 2 * measure_s)
    peaks, parts, memory, spent_s = [closed_loop(sender, _PEAK_CLIENTS, measure_s)], [], [], 0.0
    for part in range(_PARTS):
        per_s = options.times * peaks[-1].per_s
        sender.loop.look_every_s = _LOOK_EVERY_S
        open_loop(sender, per_s, _RAMP_S)  # with all connections, before memory is looked at
        if part in {0, _PARTS // 2}:
            memory.append(_memory_mb(service))
        begun_s = time.process_time()
        parts.append(open_loop(sender, per_s, part_s, _RAMP_S))
        spent_s += time.process_time() - begun_s
        sender.loop.look_every_s = 0.0
        if part == _PARTS - 1:
            memory.append(_memory_mb(service))
        peaks.append(closed_loop(sender, _PEAK_CLIENTS, measure_s))
    sender.close()
    load_cpu = spent_s / (options.seconds + _PARTS * _RAMP_S)
    return Overload(protocol, peaks, many, parts, options.target_p99_ms / 1e3, memory, load_cpu)


def _priorities(
    service: Running, photos: Sequence[bytes], peak: float, options: argparse.Namespace
) -> tuple[Seen, Seen]:
    """Bulk that saturates, and interactive requests meanwhile."""
    groups = [photos[at : at + _BULK_IMAGES] for at in range(0, len(photos) - _BULK_IMAGES, _BULK_IMAGES)]
    work = [
        ClassifyRequest(images=[Image(data=photo) for photo in group], priority=BULK).SerializeToString()
        for group in groups
    ]
    loop = Loop()
    bulk, interactive = (
        GrpcSender(loop, service.grpc, work),
        HttpSender(loop, service.http, photos, options.target_p99_ms),
    )
    seconds = max(5.0, options.seconds / 3)
    bulk_seen = begin_closed(bulk, _BULK_CLIENTS, seconds)
    interactive_seen = begin_open(interactive, _INTERACTIVE_SHARE * peak, seconds)
    loop.run()
    bulk.close()
    interactive.close()
    return bulk_seen, interactive_seen


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _memory_mb(service: Running) -> float:
    return sum((memory_mb(service.pid)).values())


# -- what is told


def _tell(told: Sequence[Overload], bulk: Seen, interactive: Seen, options: argparse.Namespace) -> None:
    lines = [
        f"target {options.target_p99_ms} ms, {options.times:g} times the peak for {options.seconds:g} s",
        "",
        "| protocol | peak/s | goodput/s | of peak | p50 ms | p99 ms | overdue | let in, too late "
        "| refused and others | PSS MB: start, middle, end | load's cores | load late ms |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|---|--:|--:|",
    ]
    for one in told:
        codes = one.seen.codes
        others = ", ".join(f"{count} {code}" for code, count in codes.items() if code not in (*GOOD, *LATE))
        cells = (
            one.protocol,
            ", ".join(f"{peak.per_s:.0f}" for peak in one.peaks),
            ", ".join(f"{good:.0f}" for good in one.goodput),
            f"{statistics.mean(one.shares):.2f} ({', '.join(f'{share:.2f}' for share in one.shares)})",
            f"{one.seen.percentile_ms(0.5):.0f}",
            f"{one.seen.percentile_ms(0.99):.0f}",
            one.overdue,
            sum(codes[status] for status in LATE),
            others,
            ", ".join(f"{size:.0f}" for size in one.memory_mb),
            f"{one.load_cpu:.2f}",
            f"{1e3 * one.seen.lag_s:.0f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        "",
        f"| {_MANY_CLIENTS} clients that wait | answers/s | p50 ms | p99 ms | statuses |",
        "|---|--:|--:|--:|---|",
    ]
    for one in told:
        lines.append(f"| {one.protocol} | {_waiting(one.many)} |")
    lines += [
        "",
        "| bulk saturates | requests/s | p50 ms | p99 ms | statuses | load late ms |",
        "|---|--:|--:|--:|---|--:|",
    ]
    lines.append(f"| bulk, {_BULK_IMAGES} images a request, {_BULK_CLIENTS} clients | {_waiting(bulk)} | |")
    lines.append(f"| interactive | {_waiting(interactive)} | {1e3 * interactive.lag_s:.0f} |")
    sys.stdout.write("\n".join(lines) + "\n")


def _waiting(seen: Seen) -> str:
    statuses = ", ".join(f"{count} {code}" for code, count in seen.codes.items())
    return f"{seen.per_s:.0f} | {seen.percentile_ms(0.5):.0f} | {seen.percentile_ms(0.99):.0f} | {statuses}"


def _claims(told: Sequence[Overload], interactive: Seen, target_ms: int) -> list[str]:
    """What should hold and does not."""
    broken = []
    for one in told:
        if statistics.mean(one.shares) < _GOODPUT:
            broken.append(f"{one.protocol}: goodput of {_GOODPUT} of the peak")
        if one.overdue:
            broken.append(f"{one.protocol}: no answer later than the deadline and a batch")
        if one.memory_mb[-1] > _GROWTH * one.memory_mb[0]:
            broken.append(f"{one.protocol}: memory does not grow")
    if interactive.percentile_ms(0.99) > target_ms:
        broken.append("interactive p99 within the target while bulk saturates")
    return broken


if __name__ == "__main__":
    sys.exit(main())
