"""docs/benchmarks.md: what benchmarks/serving.py has measured, as tables of medians."""

import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.version import Version

if TYPE_CHECKING:
    from benchmarks.serving import Row

_STOLEN: Final = 0.1
_HEAD: Final = (
    "The limit is what the machine does without any service: one process per core, each on its own core, decodes four",
    "images at a time and runs them, by the service's own decode and engine. The load generator runs on the same cores",
    "and takes its share of them. Numbers are medians of the rounds, with the range over the rounds in brackets; a",
    "share of the limit is the median of the rounds' shares, not the quotient of the medians beside it. CPU is that of",
    "all processes of a server, per image; PSS is their proportional set size. Closed loop: a client sends its next",
    "request when it has the answer to the last.",
)
_INTRODUCTIONS: Final = {
    "Photos": (
        "One photo in a request unless it says otherwise. The limit of the same images is taken before and after each",
        "row. `alone` is one image decoded and run in-process on one core of an idle machine.",
        "The milliseconds of requests that arrive begin when each was due. `openvino/int8` is the same model, trained",
        "with `--quantize`; its limit is its own.",
    ),
    "Pixels": ("Requests that need no decode; the limit is inference alone.",),
    "Protocols": (
        "A model that computes next to nothing, and pictures of 8 x 8 pixels or the model's input of 150 kB as pixels:",
        "what is left is the protocol. CPU is the whole service's for a request, engine included; p50 of one client",
        "is the way there and back.",
    ),
    "Others, OpenVINO": (
        "Other servers with MobileNetV2 on the same OpenVINO. Their model has random weights and 16 classes, and their",
        "decode is plain Pillow without scaled decoding, so it is not quite the same work. The limit is ours. The last",
        "columns say how many times as many images the service answers, by protocol and engine: with as many clients,",
        "the mean of right before and right after. These servers are not in this repository: `make bench` leaves the",
        "tables out where there is no folder with them.",
    ),
    "Others, TensorFlow": (
        "The same with TensorFlow, as their documentation has it. `flask-keras:w1` is what tutorials do.",
    ),
}


def page(rows: "Sequence[Row]", version: Version, note: str = "") -> str:
    """The whole page.

    Args:
        rows: of all rounds.
        version: the model of most of them.
        note: what else the reader must know.
    """
    tables: dict[str, dict[tuple[str, int], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        tables[row.table][row.what, row.connections].append(row)
    rounds = max(len(found) for table in tables.values() for found in table.values())
    manifest = version.manifest
    lines = [
        "# Benchmarks of serving",
        "",
        f"Written by `make bench` on {time.strftime('%Y-%m-%d')}: {_machine()}. {manifest.recipe.backbone} at "
        f"{manifest.image.side_px} px; the answer cache is off, and nothing is refused (`--max-queue 4096 "
        f"--target-p99-ms 60000`); rounds: {rounds}.",
        "",
        *_HEAD,
    ]
    stolen = [row.stolen for row in rows]
    if any(stolen):
        lines += [
            "",
            "The machine is virtual: while a row was measured its host gave to others (`steal` in /proc/stat)",
            f"{statistics.median(stolen):.0%} of its time (median; at most {max(stolen):.0%}). Of a row's rounds those",
            f"count in which that was at most {_STOLEN:.0%}, or else the best.",
        ]
    lines += ["", note] if note else []
    for name, table in tables.items():
        lines += ["", f"## {name}", "", *_INTRODUCTIONS[name], ""]
        lines += _table(table)
    return "\n".join(lines) + "\n"


def _table(table: "dict[tuple[str, int], list[Row]]") -> list[str]:
    limited = any(row.limit for rows in table.values() for row in rows)
    heads = ["what", "clients", "images/s"]
    heads += ["of the limit", "limit"] if limited else []
    heads += ["p50 ms", "alone ms", "p99 ms", "CPU ms", "PSS MB", "errors"]
    alone = any(row.alone_ms for rows in table.values() for row in rows)
    if not alone:
        heads.remove("alone ms")
    others = sorted({what for rows in table.values() for row in rows for what in row.times})
    heads += [f"{what}: times" for what in others]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'--:|' * (len(heads) - 1)}"]
    for (what, connections), measured in table.items():
        least = max(_STOLEN, min(row.stolen for row in measured))
        rows = [row for row in measured if row.stolen <= least]
        cells = [what, str(connections or "any"), _median(rows, lambda row: row.per_s, 0)]
        if limited:
            shares = [row.per_s / row.limit for row in rows if row.limit]
            cells.append(_ranged(shares, 2))
            cells.append(_ranged([row.limit for row in rows], 0))
        cells.append(_median(rows, lambda row: row.p50_ms, 2))
        if alone:
            cells.append(_median(rows, lambda row: row.alone_ms, 2) if rows[0].alone_ms else "")
        cells += [
            _median(rows, lambda row: row.p99_ms, 1),
            _median(rows, lambda row: row.cpu_ms, 2),
            _median(rows, lambda row: row.pss_mb, 0),
            str(sum(row.errors for row in rows)),
        ]
        cells += [
            _ranged(times, 1) if (times := [row.times[one] for row in rows if one in row.times]) else ""
            for one in others
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _median(rows: "Sequence[Row]", of: "Callable[[Row], float]", digits: int) -> str:
    return f"{statistics.median(map(of, rows)):.{digits}f}"


def _ranged(numbers: "Sequence[float]", digits: int) -> str:
    median = f"{statistics.median(numbers):.{digits}f}"
    return median if len(numbers) == 1 else f"{median} ({min(numbers):.{digits}f}-{max(numbers):.{digits}f})"


def _machine() -> str:
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    packages = ", ".join(
        f"{name} {installed(name)}" for name in ("openvino", "pillow", "gunicorn", "gevent", "grpcio", "protobuf")
    )
    return f"{len(os.sched_getaffinity(0))} cores, {processor}; Python {platform.python_version()}, {packages}"
